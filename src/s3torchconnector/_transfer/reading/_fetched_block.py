"""A part that has a request of its own: by a worker, or as an errand of the carrier."""

from __future__ import annotations

from s3torchconnector._config import MIB
from s3torchconnector._errors import S3Exception
from s3torchconnector._latch import Latch
from s3torchconnector._transfer.engine._memory import FillableBytes, new_buffer
from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.engine._runtime import Runtime
from s3torchconnector._transfer.reading._block import Block, GivenUp
from s3torchconnector._transfer.reading._fetch import RangeFetch
from s3torchconnector._transfer.reading._object_version import ObjectVersion
from s3torchconnector._wire import CancelToken, Exchange, NoIdleConnection, NotYet, PoolIsFull, WouldBlock

_LARGE = 4 * MIB  # bytes from which memory is worth a mapping of its own


class FetchedBlock(Block):
    """A part that fetches itself; its size may be known only when the first answer tells it."""

    def __init__(self, runtime: Runtime, version: ObjectVersion, wanted: Range) -> None:
        super().__init__(runtime.budget, wanted)
        self._runtime = runtime
        self._bucket = version.bucket
        self._cancel = CancelToken()
        stop = None if wanted.start < 0 else wanted.stop
        self._fetch = RangeFetch(version, wanted.start, stop, self._allocate, self._accept)
        self._small: FillableBytes | None = None
        self._to_be_settled = False  # by ``conclude``
        self._has_begun = False  # an answer's head is here
        self._on_begin: Latch | None = None

    def begin(self, *, wait: bool, connect: bool) -> Exchange | None:
        """Send the request, for ``proceed`` to receive its answer: the part as an errand of the carrier."""
        if not self._outcome.claim():
            return None
        try:
            return self._fetch.begin(self._runtime.caller, self._cancel, wait=wait, connect=connect)
        except (PoolIsFull, NoIdleConnection):
            self._outcome.unclaim()
            raise
        except Exception:  # whatever it is, one object's trouble must not take the others' carrier
            self.go_on()
            return None

    def connect(self) -> None:
        """Have a connection ready for ``begin``, or say why there is none; runs on a worker. Does not raise."""
        try:
            self._runtime.caller.connect(self._bucket, self._cancel)
        except Exception:  # to be raised where this part is read, after the usual attempts
            if self._outcome.claim():
                self.go_on()

    def proceed(self, scratch: bytearray) -> bool:
        """Receive what is here; True once there is nothing more to wait for. Does not raise.

        Who waits for the part is woken by ``conclude``, or by whoever goes on elsewhere.
        """
        try:
            received = self._fetch.proceed(self._runtime.caller, scratch)
        except NotYet:
            return False
        except WouldBlock:
            self.go_on()
            return True
        except BaseException as error:
            if self._cancel.cancelled or not isinstance(error, S3Exception) or isinstance(error, GivenUp):
                self._settle_failed(error)
            else:
                self.go_on()
            return True
        if received is None:
            self.go_on()
        else:
            self._take(received)
            self._to_be_settled = True
        return True

    def conclude(self) -> None:
        """Wake who waits for what ``proceed`` has received."""
        if self._to_be_settled:
            self._outcome.settle()

    def fail(self, error: Exception) -> None:
        """Tell who waits for the part that nobody will ask for it."""
        if self._outcome.claim():
            self._outcome.settle(error)

    def fetch(self) -> None:
        """Receive the bytes, unless nobody wants them any more; runs on a worker. Does not raise."""
        if self._outcome.claim():
            self._fetch_and_settle()

    def await_head(self) -> None:
        self._on_begin = begins = Latch()
        if not self._has_begun:  # asked behind the assignment, as the other thread assigns before it looks
            self._outcome.when_settled(begins.open)
            begins.wait()

    def discard(self) -> None:
        self._cancel.cancel()
        if self._outcome.claim():
            self.hand_over()
        else:
            super().discard()

    def go_on(self) -> None:
        """Have a worker try again and say what is wrong if it still is: the carrier has no time to wait for that."""
        try:
            self._runtime.workers.run(self._fetch_and_settle)
        except RuntimeError as error:
            self._outcome.settle(error)

    def _fetch_and_settle(self) -> None:
        try:
            received = self._fetch.fetch(self._runtime.caller, self._cancel)
        except BaseException as error:
            self._settle_failed(error)
        else:
            self._land(received)

    def _settle_failed(self, error: BaseException) -> None:
        self._small, self._data = None, None
        self.given_up = isinstance(error, GivenUp)
        self._outcome.settle(error)

    def _land(self, received: Range) -> None:
        self._take(received)
        self._outcome.settle()

    def _take(self, received: Range) -> None:
        if self._small is not None:
            # Nobody else holds the buffer now, so getvalue() returns it without a copy.
            self._data = self._small.getvalue()
            self._small = None
        self.start, self.stop = received
        self.sums = self._fetch.take_sums()
        self.ready = True

    def _accept(self, actual: Range, data: bytes) -> None:
        self._settle_account(len(data))
        self._data = data

    def _settle_account(self, size: int) -> None:
        self._has_begun = True
        if self._on_begin is not None:
            self._on_begin.open()
        more = size - self._reserved
        if more > 0 and not self._budget.try_take(more):
            raise GivenUp("given up: it is larger than was thought, and there is no room")
        if more < 0:
            self._budget.give(-more)
        self._reserved = size

    def _allocate(self, actual: Range) -> memoryview:
        size = actual.size
        self._settle_account(size)
        if size >= _LARGE:
            view = memoryview(new_buffer(size))
            self._data = view
            return view
        self._small = FillableBytes(bytes(size))
        return self._small.getbuffer()
