"""A read of an object of which nothing is known yet: one round trip, and memory only when its size is known."""

from __future__ import annotations

import io

from s3torchconnector._transfer._fetch import ObjectVersion, RangeFetch
from s3torchconnector._transfer._fetch_group import FetchGroup
from s3torchconnector._transfer._ranges import Range, split_on_grid


def direct(version: ObjectVersion, wanted: Range, view: memoryview, position: int) -> RangeFetch:
    """A fetch into its place in ``view``, which holds the object from ``position`` on."""

    def allocate(got: Range) -> memoryview:
        return view[got.start - position : got.stop - position]

    return RangeFetch(version, wanted.start, wanted.stop, allocate)


def read_unsized(version: ObjectVersion, group: FetchGroup, part_size: int, position: int, count: int | None) -> bytes:
    """Read up to ``count`` bytes, or all, from ``position`` on.

    The first answer tells how much there is; while its bytes are still to come, the other parts are asked for.
    """
    buffer = io.BytesIO()

    def clip(stop: int) -> int:
        return stop if version.size is None else min(stop, version.size)

    def allocate(got: Range) -> memoryview:
        nonlocal buffer
        stop = clip(position + count) if count is not None else version.size or 0
        buffer = io.BytesIO(bytes(max(0, stop - position)))
        view = buffer.getbuffer()
        for piece in split_on_grid(got.stop, stop, part_size):
            group.start(direct(version, piece, view, position))
        return view[: len(got)]

    end = position + part_size - position % part_size
    if count is not None:
        end = min(end, position + count)
    with group:
        group.run(RangeFetch(version, position, end, allocate))
    return buffer.getvalue()
