"""The objects that are in buckets now, to compare manifests with. Imported late: it uses PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from s3torchconnector._cli._location import Location
from s3torchconnector._datasets._rows import Rows
from s3torchconnector._listing_results import ObjectInfos
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer import list_all
from s3torchconnector._uri import parse_s3_uri


def pages_of(client: S3Client, places: Iterable[Location]) -> Iterator[tuple[str, ObjectInfos]]:
    """The pages of listings, each with its bucket; if one prefix lies below another, only the shorter is listed."""
    distinct = sorted(set(places))
    for place in distinct:
        others = (other for other in distinct if other != place and other.bucket == place.bucket)
        if not any(place.key.startswith(other.key) for other in others):
            for page in list_all(client._runtime, *place, restore_status=True):
                yield place.bucket, page


def origin_of(rows: Rows) -> list[Location] | None:
    """The prefixes that were listed to make a manifest; None if it was made from something else."""
    places = [Location(*parse_s3_uri(uri)) for uri in rows.header.origin]
    prefixes = [(place.bucket, place.key.encode("utf-8", "surrogatepass")) for place in places]

    def is_listed(i: int) -> bool:
        bucket, name = rows.bucket(i), rows.name_bytes(i)
        return any(bucket == listed and name.startswith(prefix) for listed, prefix in prefixes)

    return places if places and all(map(is_listed, range(len(rows)))) else None


def shared_prefixes(rows: Rows) -> list[Location]:
    """Of each bucket, what the keys of all of its objects begin with."""
    ends: dict[str, tuple[bytes, bytes]] = {}
    for i in range(len(rows)):
        bucket, name = rows.bucket(i), rows.name_bytes(i)
        first, last = ends.get(bucket, (name, name))
        ends[bucket] = min(first, name), max(last, name)  # what these two begin with, all between them begin with
    return [Location(bucket, _text(_shared(*names))) for bucket, names in ends.items()]


def _shared(first: bytes, last: bytes) -> bytes:
    """What both begin with."""
    pairs = enumerate(zip(first, last, strict=False))
    return first[: next((at for at, (one, other) in pairs if one != other), min(len(first), len(last)))]


def _text(begun: bytes) -> str:
    """As much of it as is whole characters."""
    try:
        return begun.decode()
    except UnicodeDecodeError as error:
        return begun[: error.start].decode()
