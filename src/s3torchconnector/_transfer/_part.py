"""A piece of an object in memory of ours, or on its way there."""

from __future__ import annotations

import io
from concurrent.futures import Future

from s3torchconnector._errors import S3Exception
from s3torchconnector._transfer._fetch import ObjectVersion, RangeFetch
from s3torchconnector._transfer._memory import LargeBuffer
from s3torchconnector._transfer._ranges import Range
from s3torchconnector._transfer._runtime import Runtime
from s3torchconnector._wire import CancelToken, Exchange, PoolIsFull


class Part:
    """Bytes ``start`` up to ``stop`` of an object, fetched by a worker into a buffer within the budget.

    Who makes a part has taken ``reserved`` bytes of the budget for it; ``discard`` or ``hand_over`` gives them back,
    whatever comes first, once. Until the bytes are there ``stop`` is a wish; a negative ``start`` (with any ``stop``)
    wishes for the object's last bytes.
    """

    def __init__(self, runtime: Runtime, version: ObjectVersion, wanted: Range, reserved: int) -> None:
        self.start, self.stop = wanted
        self.future: Future[None] | None = None
        self._runtime = runtime
        self._reserved = reserved
        self._cancel = CancelToken()
        self._fetch = RangeFetch(version, wanted.start, None if wanted.start < 0 else wanted.stop, self._allocate)
        self._buffer: LargeBuffer | None = None  # of the usual size, to be used again
        self._small: io.BytesIO | None = None
        self._data: memoryview | bytes = b""
        self.landed = False  # whether the bytes are there; asked without a lock, also by a forked child

    def begin(self, *, wait: bool) -> Exchange | None:
        """Send the request, for ``finish`` to receive its answer: the part as an errand of a carrier."""
        assert self.future is not None
        if not self.future.running() and not self.future.set_running_or_notify_cancel():
            return None
        try:
            return self._fetch.begin(self._runtime.caller, self._cancel, wait=wait)
        except PoolIsFull:
            raise
        except S3Exception:
            return None  # finish() sends it again, and says what is wrong if it still is

    def finish(self) -> None:
        """Receive the bytes, and settle the future. Does not raise."""
        assert self.future is not None
        if self.future.cancelled():
            return
        try:
            self.fetch()
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(None)

    def fetch(self) -> None:
        """Receive the bytes; runs on a worker."""
        received = self._fetch.run(self._runtime.caller, self._cancel)
        if self._small is not None:
            # Nobody else holds the buffer now, so getvalue() returns it without a copy.
            self._data = self._small.getvalue()
            self._small = None
        self.start, self.stop = received
        self.landed = True

    def inherited(self, runtime: Runtime) -> Part:
        """A landed part of the parent's as a forked child's own: the same bytes, and none of the parent's locks."""
        part = Part(runtime, ObjectVersion("", ""), Range(self.start, self.stop), reserved=0)
        part._data = self._data
        part.landed = True
        part.future = Future()
        part.future.set_result(None)
        return part

    def data(self) -> memoryview | bytes:
        """The bytes, once they are there.

        Raises:
            S3Exception: they could not be fetched.
        """
        assert self.future is not None
        if not self.landed:
            self.future.result()
        return self._data

    def hand_over(self) -> None:
        """Give the budget its bytes back; the memory lives on as long as its reader, on the program's account."""
        reserved, self._reserved = self._reserved, 0
        self._runtime.budget.give(reserved)

    def hand_over_when_landed(self) -> None:
        """``hand_over``, once no more memory will be taken for this part."""
        if self.future is not None:
            self.future.add_done_callback(lambda _: self.hand_over())

    def discard(self) -> None:
        """The bytes are not wanted any more: stop fetching, let go of the memory."""
        self._cancel.cancel()
        if self.future is None or self.future.cancel():
            self.hand_over()
        else:
            self.future.add_done_callback(lambda _: self._release())

    def _release(self) -> None:
        self._data = b""
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            self._runtime.budget.recycle(buffer)
        self.hand_over()

    def _allocate(self, actual: Range) -> memoryview:
        size = len(actual)
        budget = self._runtime.budget
        budget.give(self._reserved - size)  # less than was thought, or (negative) more
        self._reserved = size
        if size > budget.part_size // 2 and size <= budget.part_size:
            self._buffer = budget.buffer()
            view = memoryview(self._buffer)[:size]
            self._data = view
            return view
        self._small = io.BytesIO(bytes(size))
        return self._small.getbuffer()
