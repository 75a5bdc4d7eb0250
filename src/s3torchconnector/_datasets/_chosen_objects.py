"""The objects that go into a manifest, and what S3 says about them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import translate
from functools import partial
from itertools import islice
from operator import attrgetter
from re import compile as compile_pattern

from s3torchconnector._datasets._build import Counted
from s3torchconnector._datasets._rows import Row
from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._listed_objects import is_archived, warn_of_nothing
from s3torchconnector._progress import Progress
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer import is_listed_in_order, list_all
from s3torchconnector._types import ObjectInfo
from s3torchconnector._uri import display_uri, parse_object_uri, parse_s3_uri

_log = logging.getLogger(__name__)
_AT_A_TIME = 1000  # HEAD requests

Predicate = Callable[[ObjectInfo], bool]


@dataclass(frozen=True)
class Filter:
    """Which of the objects that were listed are samples; see ``S3Manifest.from_prefix``."""

    suffixes: str | Collection[str] | None = None
    glob: str | None = None
    min_size: int = 0
    max_size: int | None = None
    storage_classes: Collection[str] | None = None
    predicate: Predicate | None = None

    def compiled(self) -> Predicate:
        """Whether an object passes, as a function."""
        suffixes = self.suffixes if isinstance(self.suffixes, str | None) else tuple(self.suffixes)
        matches = None if self.glob is None else compile_pattern(translate(self.glob)).match
        most = float("inf") if self.max_size is None else self.max_size

        def passes(info: ObjectInfo) -> bool:
            return (
                self.min_size <= info.size <= most
                and (suffixes is None or info.key.endswith(suffixes))
                and (matches is None or matches(info.key) is not None)
                and (self.storage_classes is None or (info.storage_class or "STANDARD") in self.storage_classes)
                and (info.size > 0 or not info.key.endswith("/"))  # a console's mark of a "directory"
                and (self.predicate is None or self.predicate(info))
            )

        return passes

    def is_unreadable(self, info: ObjectInfo) -> bool:
        """Whether an object is archived, and neither restored nor asked for by its storage class."""
        return is_archived(info) and info.storage_class not in (self.storage_classes or ())


class Listed(Counted):
    """The objects below some prefixes that pass a filter, prefix by prefix, in key order.

    Args:
        client: what lists them.
        uris: the prefixes.
        chosen: the filter.
        warns: whether a prefix of which nothing is taken is logged.

    Raises:
        S3ConfigurationError: one of the prefixes lies below another, so that objects would come twice.
    """

    def __init__(self, client: S3Client, uris: Iterable[str], chosen: Filter, *, warns: bool = False) -> None:
        self._client = client
        self._prefixes = [parse_s3_uri(uri) for uri in uris]
        self._filter = chosen
        self._warns = warns
        self._refuse_overlap()

    def _refuse_overlap(self) -> None:
        for i, (bucket, prefix) in enumerate(self._prefixes):
            for j, (other_bucket, other) in enumerate(self._prefixes):
                if i != j and bucket == other_bucket and other.startswith(prefix):
                    raise S3ConfigurationError(
                        f"{display_uri(bucket, other)} lies below {display_uri(bucket, prefix)}: its objects would be "
                        "in the manifest twice. Name the shorter prefix alone"
                    )

    def __iter__(self) -> Iterator[Row]:
        passes, self.archived = self._filter.compiled(), 0
        for bucket, prefix in self._prefixes:
            before, is_empty = self.archived, True
            for info in self._listed(bucket, prefix):
                if not passes(info):
                    continue
                is_empty = False
                if self._filter.is_unreadable(info):
                    self.archived += 1
                else:
                    yield Row(bucket, info.key, info.size, info.etag)
            if self.archived > before:
                _log.warning(
                    "%d objects below %s are archived (GLACIER, DEEP_ARCHIVE) and left out of the manifest; restored, "
                    "they are in the next one",
                    self.archived - before,
                    display_uri(bucket, prefix),
                )
            if is_empty and self._warns:
                warn_of_nothing(bucket, prefix)

    def _listed(self, bucket: str, prefix: str) -> Iterable[ObjectInfo]:
        pages = list_all(self._client._runtime, bucket, prefix, restore_status=True)
        infos = (info for page in pages for info in page)
        if is_listed_in_order(self._client._runtime, bucket):
            return infos
        return sorted(infos, key=attrgetter("key"))  # ranks that list for themselves must agree


def named(client: S3Client, uris: Iterable[str]) -> Iterator[Row]:
    """The objects of these URIs, in their order, as HEAD requests describe them; many at a time.

    Raises:
        TypeError, ValueError: a URI does not name an object.
        S3NotFoundError: there is no such object.
    """
    named = [parse_object_uri(uri) for uri in uris]
    progress = Progress(client.s3client_config.progress, "describing objects", "objects", len(named))
    places = progress.each(named)
    lane = client._runtime().lane()
    while batch := list(islice(places, _AT_A_TIME)):
        heads = [lane.submit(partial(client.head_object, bucket, key)) for bucket, key in batch]
        for (bucket, key), head in zip(batch, heads, strict=True):
            found = head.result()
            yield Row(bucket, key, found.size, found.etag)
