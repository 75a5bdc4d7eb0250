"""Reads of an object about which nothing is known yet: one round trip, and memory only when its size is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from s3torchconnector._transfer.engine._memory import FillableBytes, populate
from s3torchconnector._transfer.engine._ranges import Range, split_on_grid
from s3torchconnector._transfer.reading._fetch import RangeFetch, direct
from s3torchconnector._transfer.reading._fetch_group import FetchGroup
from s3torchconnector._transfer.reading._object_version import ObjectVersion

_BLIND = 16  # requests of a read before the object's size is known: enough to keep the network busy until then


def fetch_unsized(
    group: FetchGroup[RangeFetch], version: ObjectVersion, wanted: Sequence[Range], view: memoryview, position: int
) -> None:
    """Fetch ranges into memory that the caller has for them, with few requests for bytes beyond its end."""

    def allocate(got: Range) -> memoryview:
        for late in wanted[_BLIND:]:
            if late.start < (version.size or 0):
                group.submit(direct(version, late, view, position))
        place = view[got.start - position : got.stop - position]
        populate(place)
        return place

    for early in wanted[1:_BLIND]:
        group.submit(direct(version, early, view, position))
    group.fetch_here(RangeFetch(version, wanted[0].start, wanted[0].stop, allocate))


class UnsizedRead:
    """Up to ``count`` bytes, or all, from ``position`` on.

    The first response contains the size. Before its bytes arrive, the other parts are requested.
    """

    def __init__(self, version: ObjectVersion, part_size: int, position: int, count: int | None) -> None:
        self._version = version
        self._part_size = part_size
        self._position = position
        self._count = count
        self._buffer = FillableBytes()

    def fetch(self, group: FetchGroup[RangeFetch], whole_in_parts: Callable[[], None]) -> FillableBytes:
        """Fetch; ``whole_in_parts`` is called if this turns out to be a whole object, in several requests.

        Raises:
            S3Exception: an error occurred accessing S3.
        """
        position, part_size = self._position, self._part_size

        def allocate(got: Range) -> memoryview:
            size = self._version.size or 0
            stop = size if self._count is None else min(size, position + self._count)
            self._buffer = FillableBytes(bytes(max(0, stop - position)))
            view = self._buffer.getbuffer()
            if got.stop < stop and len(view) == size:
                whole_in_parts()
            for piece in split_on_grid(got.stop, stop, part_size):
                group.submit(direct(self._version, piece, view, position))
            return view[: got.size]

        end = position + part_size - position % part_size
        if self._count is not None:
            end = min(end, position + self._count)
        with group:
            group.fetch_here(RangeFetch(self._version, position, end, allocate))
        return self._buffer
