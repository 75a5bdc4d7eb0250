"""Random access to one object: reads of any size at any place, with as few and as large requests as they allow.

The bytes of a read come from three places: from *blocks* that are complete or being received (copied once), *directly*
into the caller's memory (many requests at a time, cut on the part grid, so that no byte is requested twice), and, for
small gaps, from a new block that has bytes around them. Reads in order also read ahead: blocks after the current read
are requested before the read waits, so that the connections are never idle between two reads.

``RequestPlanner`` decides all that without I/O, for each read as a ``ReadPlan``; ``PlanExecutor`` carries it out.

A reader belongs to one thread at a time. It survives a fork: complete blocks are kept, blocks in flight belong to the
parent and are requested again. It pickles and copies as its arguments and the version that it reads.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from s3torchconnector._activity import activity
from s3torchconnector._late_imports import no_fork
from s3torchconnector._process import process_id
from s3torchconnector._transfer.engine._memory import FillableBytes
from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.engine._runtime import OpenRuntime
from s3torchconnector._transfer.reading._block import Block
from s3torchconnector._transfer.reading._blocks import Blocks
from s3torchconnector._transfer.reading._fetch import RangeFetch
from s3torchconnector._transfer.reading._fetch_group import FetchGroup
from s3torchconnector._transfer.reading._integrity import not_compared
from s3torchconnector._transfer.reading._object_version import ObjectVersion
from s3torchconnector._transfer.reading._read_policy import ReadPattern, ReadPolicy
from s3torchconnector._transfer.reading._unsized import UnsizedRead
from s3torchconnector._transfer.reading._verify import Verification

if TYPE_CHECKING:
    from s3torchconnector._transfer.reading._plan_executor import PlanExecutor


class ObjectReader:
    """One object's bytes by position.

    Args:
        open_runtime: gives the process's connections, threads and budget.
        version: the object; may already be pinned.
        policy: see ``ReadPolicy``.
        expected_size: the object's size as listed: a hint that saves requests.
        limit: the position from which on nobody will read, so that nothing there is fetched unasked.
        start: the position before which nobody will read; None: all of the object may be read, and is verified then.
    """

    _pid = 0  # if ``__init__`` fails: there is nothing to close
    _process_id = staticmethod(process_id)

    def __init__(
        self,
        open_runtime: OpenRuntime,
        version: ObjectVersion,
        policy: ReadPolicy,
        expected_size: int | None = None,
        limit: int | None = None,
        start: int | None = None,
    ) -> None:
        self._open_runtime = open_runtime
        self._version = version
        self._policy = policy
        self._expected_size = expected_size
        self._limit = limit
        self._start = start
        self._pattern = ReadPattern(policy)
        self._set_up_in_process()

    def _set_up_in_process(self, parents: Iterable[Block] = ()) -> None:
        self._runtime = runtime = self._open_runtime()
        if self._start is not None:  # S3's checksum is of all of the object
            self._version.integrity = not_compared(self._runtime.caller.checksums, self._version.bucket)
        self._verification = Verification(self._version, runtime)
        self._blocks = blocks = Blocks(runtime, self._version, self._verification)
        for each in parents:
            if each.ready and not each.received_in_place:
                blocks.index.add(each.inherited(runtime.budget))
        self._index = blocks.index
        self._part_size = runtime.config.part_size
        self._own_executor: PlanExecutor | None = None
        self._pid = os.getpid()  # last: before, there is nothing to close

    @property
    def _executor(self) -> PlanExecutor:
        """Made when it is needed, by a small object never; not by ``cached_property``, see ``Blocks``."""
        if self._own_executor is None:
            with no_fork:
                from s3torchconnector._transfer.reading._plan_executor import PlanExecutor
                from s3torchconnector._transfer.reading._request_planner import RequestPlanner

            planner = RequestPlanner(
                self._pattern,
                part_size=self._part_size,
                most_ahead=self._runtime.streams * self._part_size,
                most_kept=self._runtime.budget.limit // 2,
                limit=self._limit,
            )
            self._own_executor = PlanExecutor(self._runtime, self._version, planner, self._blocks, self._verification)
        return self._own_executor

    def _enter(self) -> None:
        """Begin an operation: leave to the parent of a forked child what is the parent's, await what was prefetched."""
        self._leave_parent()
        if self._version.size is None:
            for block in self._index:
                # It failed before anybody waited for it, or meanwhile.
                if block.can_be_retried or self._blocks.data_of(block) is None:
                    self._index.discard(block)

    def _leave_parent(self) -> None:
        if self._pid != os.getpid():
            self._version = self._version.fork()
            self._set_up_in_process(self._index)

    # -- the operations -----------------------------------------------------------------------------------------------

    def size(self) -> int:
        """The object's size in bytes; requests the object's last bytes if nothing is known yet."""
        self._enter()
        if self._version.size is None and self._expected_size is not None:
            # As listed. If the object has changed since, the first response will not agree.
            self._version.size = self._expected_size
        if self._version.size is None:
            self._blocks.fetch_tail(max(1, self._policy.smallest))
        assert self._version.size is not None
        return self._version.size

    def prefetch(self, likely_size: int | None = None, most: int | None = None) -> None:
        """Start fetching the beginning of what will be read, unless bytes have arrived or are being fetched. Does not
        wait.

        Args:
            likely_size: bytes to reserve of the budget until the response tells the size, if no listing has told it.
            most: bytes to fetch at most, if no listing has told the size.
        """
        self._leave_parent()
        if not self._index and self._version.size is None:
            start, likely = self._start or 0, likely_size if self._expected_size is None else self._expected_size
            first = self._part_size if most is None or self._expected_size is not None else min(most, self._part_size)
            stop = start + first
            if self._start is not None and self._limit is not None:
                likely, stop = self._limit - start, min(stop, self._limit)
            reserved = self._part_size if likely is None else min(self._part_size, likely)
            self._blocks.prefetch(Range(start, stop), reserved)

    def await_head(self) -> None:
        """Wait for the head of the first response, if something was prefetched. Raises its error once.

        Raises:
            S3Exception: an error occurred accessing S3.
        """
        if self._version.size is None:
            self._blocks.await_heads()
            if not self._index:  # there was no room for it
                self.size()

    def hand_out(self) -> int | None:
        """The program gets this reader: what was prefetched is the program's memory once it is here.

        Returns the object's size in bytes, if it is known already.
        """
        self._leave_parent()
        for block in self._index:
            block.unreserve_when_ready()
        return self._version.size

    @activity("reads {0._version}", "self")
    def readinto(self, position: int, view: memoryview) -> int:
        """Fill ``view`` (bytes, writable) from ``position`` on, as far as the object goes; return the count.

        Raises:
            S3Exception: an error occurred accessing S3. The content of ``view`` is then undefined.
        """
        self._enter()
        stop = self._clip(position + len(view))
        if stop <= position:
            return 0
        self._index.used = math.inf
        try:
            return self._executor.readinto(Range(position, stop), view)
        finally:
            self._index.used = time.monotonic()

    @activity("reads {0._version}", "self")
    def read_to_end(self, position: int) -> bytes:
        """Everything from ``position`` on, received straight into the ``bytes`` that are returned."""
        self._enter()
        if self._version.size is None:
            return self._read_unsized(position, None)
        size = self._version.size
        first = self._index.at(0)
        if first is not None and position == 0 and first.stop == size:
            data = self._blocks.data_of(first)
            if isinstance(data, bytes):
                self._verification.hand_out_whole(first, data, self._index)
                return data
        return self.read(position, max(0, size - position))

    @activity("reads {0._version}", "self")
    def read_range(self, wanted: Range) -> bytes:
        """The bytes of a range; without a copy if they were prefetched."""
        self._enter()
        first = self._index.at(wanted.start)
        if first is not None and (first.start, first.stop) == wanted:
            data = self._blocks.data_of(first)
            if isinstance(data, bytes):
                return data
        return self.read(wanted.start, wanted.size)

    @activity("reads {0._version}", "self")
    def read(self, position: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``position`` on, received straight into the ``bytes`` that are returned."""
        self._enter()
        block = self._index.at(position)
        # In the middle of a block there is nothing to plan; at its ends there may be.
        if block is not None and block.ready and block.start < position and position + count < block.stop:
            here = self._blocks.data_of(block)
            if here is not None:
                self._pattern.note(position, position + count)
                self._index.used = time.monotonic()
                data = bytes(here[position - block.start : position + count - block.start])
                self._verification.hand_out_within(block, position, position + count, here, self._index)
                return data
        if self._version.size is None and count > self._part_size:
            return self._read_unsized(position, count)
        count = max(0, self._clip(position + count) - position)
        # bytes() of a size is memory the kernel zeroes lazily; its BytesIO fills it and hands it out without a copy.
        buffer = FillableBytes(bytes(count))
        with buffer.getbuffer() as view:
            received = self.readinto(position, view)
        return buffer.getvalue() if received == count else buffer.getvalue()[:received]

    def buffered(self, position: int) -> memoryview | bytes:
        """What is here from ``position`` on without a request; may be empty."""
        block = self._index.at(position)
        data = self._blocks.data_of(block) if block is not None and block.ready else None
        return b"" if block is None or data is None else memoryview(data)[position - block.start :]

    def close(self) -> None:
        """Cancel running requests and free all memory."""
        if self._pid == self._process_id():
            self._index.discard_all()

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        version = self._version.fork()  # not even ``copy.copy`` may mix the checksums of two readers
        hints = (self._expected_size, self._limit, self._start)
        return ObjectReader, (self._open_runtime, version, self._policy, *hints)

    def _read_unsized(self, position: int, count: int | None) -> bytes:
        group: FetchGroup[RangeFetch] = FetchGroup(self._blocks.lane, self._runtime.caller)
        unsized = UnsizedRead(self._version, self._part_size, position, count)
        buffer = unsized.fetch(group, partial(self._verification.ask_in_background, self._blocks.lane))
        with buffer.getbuffer() as view:
            for fetch in group.fetches:
                self._verification.note_fetch(fetch, view, position)
            self._verification.verify_read(position, view, self._blocks.lane, self._index)
        data = buffer.getvalue()
        self._pattern.note(position, position + len(data))
        return data

    def _clip(self, stop: int) -> int:
        return stop if self._version.size is None else min(stop, self._version.size)
