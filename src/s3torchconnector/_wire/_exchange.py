"""One request on one connection, and its answer.

Made, it has been sent; then it is received or discarded, once. In between, its descriptor can be waited on together
with others (see ``_transfer/engine/_multiplexer``), and it can be hedged: sent again on a second connection. The one on
which the answer begins first is kept, and the other closed.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import TypeVar, cast

from s3torchconnector._errors import S3ConnectionError, S3Exception, S3ProtocolError, S3TimeoutError
from s3torchconnector._wire._connection import Connection, NotYet
from s3torchconnector._wire._deadline import Deadline, poll_until
from s3torchconnector._wire._dialer import Address, NoIdleConnection
from s3torchconnector._wire._hedging import Hedging
from s3torchconnector._wire._operations import Request
from s3torchconnector._wire._pool import ConnectionPool
from s3torchconnector._wire._response import Response

_T = TypeVar("_T")
_LOOK_AGAIN = 10e-3  # seconds after which it is seen that another thread has opened a connection


class ClosedMeanwhile(S3ConnectionError):
    """A connection that had served before broke without an answer: most likely the server had closed it, idle."""


class WouldBlock(S3Exception):
    """What follows comes in no known number of bytes: a thread that may wait must receive it. Never reaches users."""


class Exchange:
    """A request that is on its way.

    Args:
        pool: where its connection comes from and goes back to.
        address: where it goes.
        request: what is asked.
        head: its head, addressed and signed.
        patience: how long it may last. Cancelling its token aborts the connection, if the request publishes nothing.
        fresh: whether it must have a new connection.

    Raises:
        PoolIsFull, NoneIdle: ``deadline`` says not to wait for a connection, or not to open one.
        S3ConnectionError, S3TimeoutError: it could not be sent.
        CancelledByCaller: the token was cancelled before.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        address: Address,
        request: Request,
        head: bytes,
        deadline: Deadline,
        *,
        fresh: bool,
    ) -> None:
        self._pool = pool
        self._address = address
        self._request = request
        self._head = head
        self._deadline = deadline
        self._token = deadline.token
        self._early: Response | None = None
        self._failure: BaseException | None = None
        self._spare: Connection | None = None
        self.response: Response | None = None
        self.answering = False  # whether it is known on which connection the answer comes
        # Last, so that no interrupt comes between this and what gives it back.
        self._connection = pool.acquire(address, deadline, fresh=fresh)
        try:
            self.started = time.perf_counter()
            if not request.publishes:  # cut off, it might be carried out later than what its caller does next
                self._token.enter(self._connection)
            self._send(head)
        except BaseException as error:
            self.discard()
            if self._closed_meanwhile(error):
                raise ClosedMeanwhile(str(error)) from error
            raise

    def _send(self, head: bytes) -> None:
        try:
            if self._connection.send(head, self._request.body):
                return
            broken = S3ConnectionError("the server responded or closed the connection before it had the whole request")
        except S3TimeoutError:
            raise
        except S3ConnectionError as error:
            broken = error
        # A server that refuses a body responds and takes no more of it, or closes: its reason beats "broken pipe".
        try:
            self._early = Response(self._connection)
        except S3Exception:
            raise broken from None
        if self._early.status < 300:
            raise broken

    def fileno(self) -> int:
        """The descriptor that becomes readable when the answer begins."""
        return self._connection.fileno()

    def abort(self) -> None:
        """Make ``receive`` fail at once."""
        self._connection.abort()
        if self._spare is not None:
            self._spare.abort()

    def hedge(self) -> int | None:
        """Send it again on another connection: its descriptor, or None if there is none to be had.

        Raises:
            NoneIdle: it would have to be opened, which takes long. May be called again.
        """
        if self._spare is not None or self._failure is not None:
            return None
        try:
            spare = self._pool.acquire(self._address, self._deadline._replace(wait=False, connect=False))
        except NoIdleConnection:
            raise
        except S3Exception:
            return None
        self._spare = spare
        try:
            self._token.enter(spare)
            spare.send(self._head, self._request.body)
        except S3Exception:
            self.drop_spare()
            return None
        return spare.fileno()

    def settle_on(self, descriptor: int) -> int | None:
        """The answer begins on this descriptor. Returns the other: to be forgotten, then closed."""
        self.answering = True
        spare = self._spare
        if spare is None:
            return None
        if descriptor == spare.fileno():
            self._connection, self._spare = spare, self._connection
            self.started = time.perf_counter()
        assert self._spare is not None
        return self._spare.fileno()

    def drop_spare(self) -> None:
        """Close the connection on which no answer is awaited."""
        spare, self._spare = self._spare, None
        if spare is not None:
            self._token.leave(spare)
            self._pool.discard(spare)

    def await_answer(self, hedging: Hedging, silence: float) -> None:
        """Wait until the answer begins, and hedge in between where that is due.

        Raises:
            S3TimeoutError: it has not begun after ``silence`` seconds.
        """
        if self.answering or self._failure is not None or self._early is not None:
            return
        try:
            self._await_answer(hedging, silence)
        except BaseException as failure:  # also an interrupt: nobody is going to receive
            self._failure = failure
            self.discard()
            raise

    def _await_answer(self, hedging: Hedging, silence: float) -> None:
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        now, delay = time.perf_counter(), hedging.delay  # which other threads' answers change
        end = now + min(silence, self._deadline.left())
        first = self._first_begun(min(end, now + delay), poll)
        if first is None and now + delay < end:
            first = self._ask_again(end, poll) if hedging.spend() else None
            first = self._first_begun(end, poll) if first is None else first
        if first is not None:
            hedging.note(time.perf_counter() - self.started)
            self.settle_on(first)
            self.drop_spare()
        elif self._deadline.left() > 0:  # to receive would be to wait as long again; without time, it says so
            raise self._connection.silence()

    def _first_begun(self, end: float, poll: select.poll) -> int | None:
        """The descriptor on which the answer has begun by ``end``."""
        while ready := poll_until(end, poll):
            for descriptor, _ in ready:
                if self.has_begun(descriptor):
                    return descriptor
        return None

    def has_begun(self, descriptor: int) -> bool:
        """Whether what is readable on this descriptor is the answer: it may be what TLS has to say."""
        spare = self._spare
        return (spare if spare is not None and descriptor == spare.fileno() else self._connection).has_begun()

    def _ask_again(self, end: float, poll: select.poll) -> int | None:
        """Hedge. Returns where the answer begins before that can be done: another thread opens what takes long."""
        try:
            other = self.hedge()
        except NoIdleConnection:
            opened = self._pool.open_elsewhere(self._address, self._deadline)
            first = None
            while first is None and not opened.is_set() and (now := time.perf_counter()) < end:
                first = self._first_begun(min(end, now + _LOOK_AGAIN), poll)
            if first is not None or not opened.is_set():
                return first
            try:
                other = self.hedge()
            except NoIdleConnection:  # it did not open, or another took it
                return None
        if other is not None:
            poll.register(other, select.POLLIN)
        return None

    def lend(self, scratch: bytearray | None) -> None:
        """Have ``receive`` wait for nothing, see ``Connection.lend``."""
        if self._failure is None:
            self._connection.lend(scratch)

    def receive(self, consume: Callable[[Response], _T], refused: Callable[[Response], S3Exception]) -> _T:
        """Receive the answer: what ``consume`` makes of a good one; ``refused`` tells the error of another.

        Raises:
            S3Exception: the connection broke, or S3 refused; every later call raises it again.
            NotYet: the connection must not wait (``lend``), and more is to come.
            HasToWait: the same, and it must be received with waiting; the connection does from now on.
        """
        if self._failure is not None:
            raise self._failure
        try:
            result, error, reusable = self._receive(consume, refused)
        except (NotYet, WouldBlock):
            raise
        except BaseException as failure:
            self._connection.lend(None)
            self.discard()
            self._failure = failure
            if self._closed_meanwhile(failure):
                self._failure = ClosedMeanwhile(str(failure))
                raise self._failure from failure
            raise
        self._token.leave(self._connection)
        if reusable:
            self._pool.release(self._address, self._connection)
        else:
            self._pool.discard(self._connection)
        if error is not None:
            self._failure = error
            raise error
        return cast(_T, result)

    def _receive(
        self, consume: Callable[[Response], _T], refused: Callable[[Response], S3Exception]
    ) -> tuple[_T | None, S3Exception | None, bool]:
        """What came of it, or the refusal, and whether the connection can be used again."""
        response = self.response
        if response is None:
            response = self._early or Response(self._connection, bodyless=self._request.method == "HEAD")
            self.response = response
        good = 200 <= response.status < 300 or response.status in self._request.also_good
        if self._connection.is_lent and not (good and response.is_sized):
            here = response.is_here
            self._connection.lend(None)
            if not here:
                raise WouldBlock
        result = error = None
        if good:
            result = consume(response)
            self._connection.lend(None)
        else:
            error = refused(response)
        return result, error, response.finish() and self._early is None

    def _closed_meanwhile(self, error: BaseException) -> bool:
        # What does not begin like a response is what came late of the one before.
        broke = isinstance(error, (S3ConnectionError, S3ProtocolError)) and not isinstance(error, S3TimeoutError)
        return broke and self._connection.used and self.response is None

    def discard(self) -> None:
        """End it without an answer."""
        self.drop_spare()
        self._token.leave(self._connection)
        self._pool.discard(self._connection)
