"""``s3torch manifest verify``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from s3torchconnector._cli._connection import Connection, connects
from s3torchconnector._cli._endings import fail
from s3torchconnector._cli._location import Location, Object
from s3torchconnector._cli._output import Json, print_json, print_line, printable, tell
from s3torchconnector._errors import S3NotFoundError
from s3torchconnector._etag import bare
from s3torchconnector._late_imports import no_fork
from s3torchconnector._listed_objects import is_archived
from s3torchconnector._plural import counted
from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo

if TYPE_CHECKING:
    from s3torchconnector._cli._manifests._pinned import Pinned
    from s3torchconnector._datasets._rows import Row

_PAGES = 20
_AT_A_TIME = 1000  # HEAD requests


class Problem(NamedTuple):
    """An object that cannot be read as it was listed: it is ``missing``, ``changed`` or ``archived``."""

    problem: str
    uri: str
    pinned: str
    now: str | None


@connects
def verify(manifest: Object, *, as_json: Json = False, connection: Connection) -> None:
    """Check that every object of a manifest is still there, in the version that was listed. Ends with 1 if not.

    The bucket is listed, a thousand objects a request. If the manifest has only few of them, each is asked for instead.
    """
    with no_fork:
        from s3torchconnector._cli._manifests._pinned import Pinned, fetch, objects_of
    counts: Counter[str] = Counter()
    with connection.opened() as client:
        pinned = Pinned(objects_of(fetch(client, str(manifest))))
        for each in problems_of(client, pinned):
            counts[each.problem] += 1
            if as_json:
                print_json(each._asdict())
            else:
                print_line(f"{each.problem:<8}  {printable(each.uri)}")
    total = len(pinned.rows)
    summary = {"objects": total, **{kind: counts[kind] for kind in ("missing", "changed", "archived")}}
    if as_json:
        print_json({"summary": summary})
    if counts:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
        raise fail(f"of {counted(total, 'object')} of {manifest}: {kinds}. Make a new manifest to read what is there")
    if not as_json:
        tell(f"{counted(total, 'object')}: all as listed")


def problems_of(client: S3Client, pinned: Pinned, ask_after: int = _PAGES) -> Iterator[Problem]:
    """The problems of the objects of a manifest.

    Args:
        ask_after: pages that are listed before HEAD requests are sent instead, if they are fewer than those pages.

    Raises:
        S3Exception: an error occurred accessing S3.
    """
    with no_fork:
        from s3torchconnector._cli._manifests._listing import origin_of, pages_of, shared_prefixes
    places = origin_of(pinned.rows) or shared_prefixes(pinned.rows)
    for number, (bucket, page) in enumerate(pages_of(client, places), 1):
        for info in page:
            row = pinned.find(bucket, info.key)
            if row is not None and (problem := _problem(row, info)):
                yield problem
        if not pinned.missing_count:
            return
        if number > ask_after and number >= pinned.missing_count:
            yield from _asked(client, pinned)
            return
    for row in pinned.missing():
        yield Problem("missing", _uri(row), row.etag, None)


def _asked(client: S3Client, pinned: Pinned) -> Iterator[Problem]:
    """The problems of the objects that no page has contained so far, by one HEAD request each."""
    rows, lane = pinned.missing(), client._runtime().lane()
    while batch := list(islice(rows, _AT_A_TIME)):
        heads = [lane.submit(partial(client.head_object, row.bucket, row.key)) for row in batch]
        for row, head in zip(batch, heads, strict=True):
            try:
                info = ObjectInfo(row.key, *head.result()[:5])
            except S3NotFoundError:
                yield Problem("missing", _uri(row), row.etag, None)
                continue
            if problem := _problem(row, info):
                yield problem


def _problem(row: Row, info: ObjectInfo) -> Problem | None:
    if bare(info.etag) != bare(row.etag) or info.size != row.size:
        return Problem("changed", _uri(row), row.etag, info.etag)
    return Problem("archived", _uri(row), row.etag, info.etag) if is_archived(info) else None


def _uri(row: Row) -> str:
    return str(Location(row.bucket, row.key))
