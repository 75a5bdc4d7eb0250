"""A block that has its own request, and that request: for a worker, or for the multiplexer.

The request refers to the block, never the other way round: the cycle would keep both, and the object's bytes, until the
next garbage collection, which costs a small object a quarter of its processor time.
"""

from __future__ import annotations

from s3torchconnector._config import MIB
from s3torchconnector._errors import S3Exception
from s3torchconnector._latch import Latch
from s3torchconnector._transfer.engine._budget import ByteBudget
from s3torchconnector._transfer.engine._memory import FillableBytes, new_buffer
from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.engine._runtime import Runtime
from s3torchconnector._transfer.reading._block import Block, Released
from s3torchconnector._transfer.reading._fetch import RangeFetch
from s3torchconnector._transfer.reading._ledger import Sums
from s3torchconnector._transfer.reading._object_version import ObjectVersion
from s3torchconnector._wire import CancelToken, Exchange, NoIdleConnection, NotYet, PoolIsFull, WouldBlock

_LARGE = 4 * MIB  # bytes from which memory is worth a mapping of its own


class FetchedBlock(Block):
    """A block whose size may be known only when the response tells it. ``BlockRequest`` fills it.

    Attributes:
        cancel: ends the request when the block is discarded.
    """

    _small: FillableBytes | None = None
    _has_head = False  # the head of a response is here
    _on_head: Latch | None = None

    def __init__(self, budget: ByteBudget, wanted: Range) -> None:
        super().__init__(budget, wanted)
        self.cancel = CancelToken()

    def allocate(self, actual: Range) -> memoryview:
        """The head of a response is here: memory for these bytes, which will come.

        Raises:
            Released: there is no room for them.
        """
        size = actual.size
        self._adjust_reservation(size)
        if size >= _LARGE:
            view = memoryview(new_buffer(size))
            self._data = view
            return view
        self._small = FillableBytes(bytes(size))
        return self._small.getbuffer()

    def accept(self, actual: Range, data: bytes) -> None:
        """All bytes came together with the head.

        Raises:
            Released: there is no room for them.
        """
        self._adjust_reservation(len(data))
        self._data = data

    def _adjust_reservation(self, size: int) -> None:
        self._has_head = True
        if self._on_head is not None:
            self._on_head.open()
        more = size - self._reserved
        if more > 0 and not self._budget.try_take(more):
            raise Released("released: it is larger than was thought, and there is no room")
        if more < 0:
            self._budget.give_back(-more)
        self._reserved = size

    def fill(self, received: Range, sums: Sums) -> None:
        """All bytes are in the memory."""
        if self._small is not None:
            # Nobody else holds the buffer now, so getvalue() returns it without a copy.
            self._data = self._small.getvalue()
            self._small = None
        self.start, self.stop = received
        self.sums = sums
        self.ready = True

    def fail(self, error: BaseException) -> None:
        """The bytes will not come."""
        self._small, self._data = None, None
        self.released = isinstance(error, Released)
        self.outcome.set(error)

    def await_head(self) -> None:
        self._on_head = head_is_here = Latch()
        if not self._has_head:  # asked after the assignment, as the other thread assigns before it looks
            self.outcome.when_set(head_is_here.open)
            head_is_here.wait()

    def discard(self) -> None:
        if not self.ready:  # or else the request has ended
            self.cancel.cancel()
            if self.outcome.claim():
                self.unreserve()
                return
        super().discard()


class BlockRequest:
    """Fetches one block: a ``MultiplexedRequest``, and a worker's job (``fetch``)."""

    __slots__ = ("_block", "_bucket", "_fetch", "_is_received", "_runtime")

    def __init__(self, runtime: Runtime, version: ObjectVersion, block: FetchedBlock) -> None:
        self._runtime = runtime
        self._bucket = version.bucket
        self._block = block
        stop = None if block.start < 0 else block.stop
        self._fetch = RangeFetch(version, block.start, stop, block.allocate, block.accept)
        self._is_received = False

    def __repr__(self) -> str:
        return self._fetch.description

    # -- for a worker -------------------------------------------------------------------------------------------------

    def fetch(self) -> None:
        """Receive the bytes, unless they are no longer needed. Does not raise."""
        if self._block.outcome.claim():
            self._fetch_claimed()

    def _fetch_claimed(self) -> None:
        block = self._block
        try:
            received = self._fetch.fetch(self._runtime.caller, block.cancel)
        except BaseException as error:
            block.fail(error)
        else:
            block.fill(received, self._fetch.take_sums())
            block.outcome.set()

    # -- for the multiplexer ------------------------------------------------------------------------------------------

    def send(self, *, wait: bool, connect: bool) -> Exchange | None:
        if not self._block.outcome.claim():
            return None
        try:
            return self._fetch.send(self._runtime.caller, self._block.cancel, wait=wait, connect=connect)
        except (PoolIsFull, NoIdleConnection):
            self._block.outcome.release_claim()
            raise
        except Exception:  # whatever it is: the other requests of the multiplexer must not suffer from it
            self.continue_on_worker()
            return None

    def connect(self) -> None:
        try:
            self._runtime.caller.connect(self._bucket, self._block.cancel)
        except Exception:  # a worker makes the usual attempts, and the error is raised where this block is read
            if self._block.outcome.claim():
                self.continue_on_worker()

    def receive(self, scratch: bytearray) -> bool:
        try:
            received = self._fetch.receive_available(self._runtime.caller, scratch)
        except NotYet:
            return False
        except WouldBlock:
            self.continue_on_worker()
            return True
        except BaseException as error:
            if self._block.cancel.cancelled or not isinstance(error, S3Exception) or isinstance(error, Released):
                self._block.fail(error)
            else:
                self.continue_on_worker()
            return True
        if received is None:
            self.continue_on_worker()
        else:
            self._block.fill(received, self._fetch.take_sums())
            self._is_received = True
        return True

    def notify(self) -> None:
        if self._is_received:
            self._block.outcome.set()

    def continue_on_worker(self) -> None:
        # The multiplexer has no time for a second attempt: a worker makes it, and reports what is still wrong then.
        try:
            self._runtime.workers.submit(self._fetch_claimed)
        except RuntimeError as error:
            self._block.outcome.set(error)

    def fail(self, error: Exception) -> None:
        if self._block.outcome.claim():
            self._block.outcome.set(error)
