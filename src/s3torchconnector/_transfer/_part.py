"""A piece of an object in memory of ours, or on its way there."""

from __future__ import annotations

import io

from s3torchconnector._errors import S3Exception
from s3torchconnector._transfer._fetch import ObjectVersion, RangeFetch
from s3torchconnector._transfer._landing import Landing
from s3torchconnector._transfer._memory import LargeBuffer
from s3torchconnector._transfer._ranges import Range
from s3torchconnector._transfer._runtime import Runtime
from s3torchconnector._wire import CancelToken, Exchange, NotYet, PoolIsFull


class Part:
    """Bytes ``start`` up to ``stop`` of an object, fetched by a worker into a buffer within the budget.

    Who makes a part has taken ``reserved`` bytes of the budget for it; ``discard`` or ``hand_over`` gives them back,
    whatever comes first, once. Until the bytes are there ``stop`` is a wish; a negative ``start`` (with any ``stop``)
    wishes for the object's last bytes.
    """

    def __init__(self, runtime: Runtime, version: ObjectVersion, wanted: Range, reserved: int) -> None:
        self.start, self.stop = wanted
        self._landing = Landing()
        self._runtime = runtime
        self._reserved = reserved
        self._cancel = CancelToken()
        stop = None if wanted.start < 0 else wanted.stop
        self._fetch = RangeFetch(version, wanted.start, stop, self._allocate, self._accept)
        self._buffer: LargeBuffer | None = None  # of the usual size, to be used again
        self._small: io.BytesIO | None = None
        self._data: memoryview | bytes = b""
        self.landed = False  # whether the bytes are there; asked without a lock, also by a forked child

    def begin(self, *, wait: bool) -> Exchange | None:
        """Send the request, for ``proceed`` to receive its answer: the part as an errand of the carrier."""
        if not self._landing.claim():
            return None
        try:
            return self._fetch.begin(self._runtime.caller, self._cancel, wait=wait)
        except PoolIsFull:
            self._landing.unclaim()
            raise
        except S3Exception:
            self._go_on_elsewhere()
            return None

    def proceed(self, scratch: bytearray) -> bool:
        """Receive what is here; True once there is nothing more to wait for. Does not raise."""
        try:
            received = self._fetch.proceed(self._runtime.caller, scratch)
        except NotYet:
            return False
        except BaseException as error:
            if self._cancel.cancelled or not isinstance(error, S3Exception):
                self._landing.settle(error)
            else:
                self._go_on_elsewhere()
            return True
        if received is None:
            self._go_on_elsewhere()
        else:
            self._land(received)
        return True

    def _go_on_elsewhere(self) -> None:
        """Have a worker try again and say what is wrong if it still is: the carrier has no time to wait for that."""
        try:
            self._runtime.workers.run(self._fetch_and_settle)
        except RuntimeError as error:
            self._landing.settle(error)

    def fetch(self) -> None:
        """Receive the bytes, unless nobody wants them any more; runs on a worker. Does not raise."""
        if self._landing.claim():
            self._fetch_and_settle()

    def _fetch_and_settle(self) -> None:
        try:
            received = self._fetch.run(self._runtime.caller, self._cancel)
        except BaseException as error:
            self._landing.settle(error)
        else:
            self._land(received)

    def _land(self, received: Range) -> None:
        if self._small is not None:
            # Nobody else holds the buffer now, so getvalue() returns it without a copy.
            self._data = self._small.getvalue()
            self._small = None
        self.start, self.stop = received
        self.landed = True
        self._landing.settle()

    def inherited(self, runtime: Runtime) -> Part:
        """A landed part of the parent's as a forked child's own: the same bytes, and none of the parent's locks."""
        part = Part(runtime, ObjectVersion("", ""), Range(self.start, self.stop), reserved=0)
        part._data = self._data
        part.landed = True
        part._landing.settle()
        return part

    def data(self) -> memoryview | bytes:
        """The bytes, once they are there.

        Raises:
            S3Exception: they could not be fetched.
        """
        if not self.landed:
            self._landing.wait()
        return self._data

    def hand_over(self) -> None:
        """Give the budget its bytes back; the memory lives on as long as its reader, on the program's account."""
        reserved, self._reserved = self._reserved, 0
        self._runtime.budget.give(reserved)

    def hand_over_when_landed(self) -> None:
        """``hand_over``, once no more memory will be taken for this part."""
        self._landing.when_settled(self.hand_over)

    def discard(self) -> None:
        """The bytes are not wanted any more: stop fetching, let go of the memory."""
        self._cancel.cancel()
        if self._landing.claim():
            self.hand_over()
        else:
            self._landing.when_settled(self._release)

    def _release(self) -> None:
        self._data = b""
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            self._runtime.budget.recycle(buffer)
        self.hand_over()

    def _accept(self, actual: Range, data: bytes) -> None:
        self._settle_account(len(data))
        self._data = data

    def _settle_account(self, size: int) -> None:
        if self._reserved != size:
            self._runtime.budget.give(self._reserved - size)  # less than was thought, or (negative) more
            self._reserved = size

    def _allocate(self, actual: Range) -> memoryview:
        size = len(actual)
        budget = self._runtime.budget
        self._settle_account(size)
        if size > budget.part_size // 2 and size <= budget.part_size:
            self._buffer = budget.buffer()
            view = memoryview(self._buffer)[:size]
            self._data = view
            return view
        self._small = io.BytesIO(bytes(size))
        return self._small.getbuffer()
