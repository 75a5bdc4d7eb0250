"""One request on one connection, and its response.

Making an ``Exchange`` sends the request; then its response is received, or it is discarded, once. In between, its
descriptor can be polled together with others (``_transfer/engine/_multiplexer``), and it can be hedged: sent again on a
second connection. The connection on which a response begins first is kept, the other is closed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar, cast

from s3torchconnector._activity import activity
from s3torchconnector._errors import S3ConnectionError, S3Exception, S3ProtocolError, S3TimeoutError
from s3torchconnector._wire._attempt import Attempt
from s3torchconnector._wire._connection import Connection, NotYet, StaleConnection, WouldBlock
from s3torchconnector._wire._deadline import Deadline, poll_until
from s3torchconnector._wire._dialer import NoIdleConnection
from s3torchconnector._wire._figures import HEDGES, HEDGES_WON, Figures
from s3torchconnector._wire._hedging import Hedging
from s3torchconnector._wire._polling import POLLIN, Poll, new_poll
from s3torchconnector._wire._pool import ConnectionPool
from s3torchconnector._wire._response import Response

_T = TypeVar("_T")
_CHECK_INTERVAL = 10e-3  # seconds between checks whether another thread has opened a connection


class Exchange:
    """A request that was sent.

    Args:
        pool: where its connection comes from and goes back to.
        figures: where its end is counted.
        attempt: what is sent, and where.
        head: the head of the request, addressed and signed.
        deadline: how long it may last. Cancelling its token aborts the connection, unless the request stores an object.
        fresh: whether it must have a new connection.

    Attributes:
        started: when it was sent, by ``time.perf_counter``.
        response: the response, once its head has been received.
        is_responding: whether it is known on which connection the response comes.

    Raises:
        PoolIsFull, NoIdleConnection: ``deadline`` says not to wait for a connection, or not to open one.
        S3ConnectionError, S3TimeoutError: it could not be sent.
        CancelledByCaller: the token was cancelled.
    """

    def __init__(
        self, pool: ConnectionPool, figures: Figures, attempt: Attempt, head: bytes, deadline: Deadline, *, fresh: bool
    ) -> None:
        self._pool = pool
        self._figures = figures
        self._route = route = attempt.route
        self._request = request = attempt.request
        self._head = head
        self._deadline = deadline
        self._token = deadline.token
        self._early: Response | None = None
        self._failure: BaseException | None = None
        self._spare: Connection | None = None
        self.response: Response | None = None
        self.is_responding = False
        # Last, so that an interrupt cannot come between this and the code that gives the connection back.
        self._connection = pool.acquire(route, deadline, fresh=fresh)
        try:
            self.started = self._begun = time.perf_counter()
            if not request.stores_object:  # aborted, it might still be stored, after what its caller does next
                self._token.enter(self._connection)
            self._send(head)
        except BaseException as error:
            self.discard()
            if self._is_stale(error):
                raise StaleConnection(str(error)) from error
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
        # A server that refuses a body responds early, or closes: its response says more than "broken pipe".
        try:
            self._early = Response(self._connection)
        except S3Exception:
            raise broken from None
        if self._early.status < 300:
            raise broken

    def __repr__(self) -> str:
        return f"<Exchange [{self._request.description}: {self.progress}]>"

    @property
    def progress(self) -> str:
        """How far it has come, for any thread."""
        response = self.response
        state = "waiting" if response is None else f"receiving, {response.received} bytes so far"
        state = "failed" if self._failure is not None else state
        hedged = ", hedged" if self._spare is not None else ""
        return f"{state}, sent {time.perf_counter() - self.started:.1f} s ago{hedged}"

    def fileno(self) -> int:
        """The descriptor that becomes readable when the response begins."""
        return self._connection.fileno()

    def abort(self) -> None:
        """Make ``receive`` fail at once; callable from any thread."""
        self._connection.abort()
        if self._spare is not None:
            self._spare.abort()

    def hedge(self) -> int | None:
        """Send the request again on another connection: its descriptor, or None if no connection can be had.

        Raises:
            NoIdleConnection: a connection has to be opened, which takes long. May be called again.
        """
        if self._spare is not None or self._failure is not None:
            return None
        try:
            spare = self._pool.acquire(self._route, self._deadline._replace(wait=False, connect=False))
        except NoIdleConnection:
            raise
        except S3Exception:
            return None
        self._spare = spare
        self._figures.add(HEDGES)
        try:
            self._token.enter(spare)
            spare.send(self._head, self._request.body)
        except S3Exception:
            self.discard_spare()
            return None
        return spare.fileno()

    def keep_connection(self, descriptor: int) -> int | None:
        """Keep the one on which the response begins. Returns the other's, to stop polling before ``discard_spare``."""
        self.is_responding = True
        spare = self._spare
        if spare is None:
            return None
        if descriptor == spare.fileno():
            self._connection, self._spare = spare, self._connection
            self.started = time.perf_counter()
            self._figures.add(HEDGES_WON)
        assert self._spare is not None
        return self._spare.fileno()

    def discard_spare(self) -> None:
        """Close the connection on which no response is expected."""
        spare, self._spare = self._spare, None
        if spare is not None:
            self._token.leave(spare)
            self._pool.discard(spare)
            self._figures.note_end(self._request)

    @activity("{0.progress}", "self")
    def await_response(self, hedging: Hedging, silence: float) -> None:
        """Wait until the response begins; hedge when that is due.

        Raises:
            S3TimeoutError: it did not begin within ``silence`` seconds.
        """
        if self.is_responding or self._failure is not None or self._early is not None:
            return
        try:
            self._await_response(hedging, silence)
        except BaseException as failure:  # also an interrupt: then nobody will receive
            self._failure = failure
            self.discard()
            raise

    def _await_response(self, hedging: Hedging, silence: float) -> None:
        poll = new_poll()
        poll.register(self.fileno(), POLLIN)
        now, delay = time.perf_counter(), hedging.delay  # once: responses to other threads change it
        end = now + min(silence, self._deadline.left())
        first = self._first_begun(min(end, now + delay), poll)
        if first is None and now + delay < end:
            first = self._hedge_when_connected(end, poll) if hedging.spend() else None
            first = self._first_begun(end, poll) if first is None else first
        if first is not None:
            hedging.note(time.perf_counter() - self.started)
            self.keep_connection(first)
            self.discard_spare()
        elif self._deadline.left() > 0:  # receiving would wait as long again; if time is up, receiving says so
            raise self._connection.silence_error()

    def _first_begun(self, end: float, poll: Poll) -> int | None:
        """The descriptor on which the response begins by ``end``, or None."""
        while ready := poll_until(end, poll):
            for descriptor, _ in ready:
                if self.has_begun(descriptor):
                    return descriptor
        return None

    def has_begun(self, descriptor: int) -> bool:
        """Whether what is readable on this descriptor is the response: it may be a message of TLS."""
        spare = self._spare
        return (spare if spare is not None and descriptor == spare.fileno() else self._connection).has_begun()

    def _hedge_when_connected(self, end: float, poll: Poll) -> int | None:
        """Hedge; another thread opens the connection if none is idle. Returns where a response begins before that."""
        try:
            other = self.hedge()
        except NoIdleConnection:
            opened = self._pool.open_in_background(self._route, self._deadline)
            first = None
            while first is None and not opened.is_set() and (now := time.perf_counter()) < end:
                first = self._first_begun(min(end, now + _CHECK_INTERVAL), poll)
            if first is not None or not opened.is_set():
                return first
            try:
                other = self.hedge()
            except NoIdleConnection:  # it did not open, or another thread took it
                return None
        if other is not None:
            poll.register(other, POLLIN)
        return None

    def set_nonblocking(self, scratch: bytearray | None) -> None:
        """Make ``receive`` wait for nothing; see ``Connection.set_nonblocking``."""
        if self._failure is None:
            self._connection.set_nonblocking(scratch)

    @activity("{0.progress}", "self")
    def receive(self, consume: Callable[[Response], _T], error_of: Callable[[Response], S3Exception]) -> _T:
        """Receive the response: what ``consume`` makes of a good one. ``error_of`` makes the error of any other.

        Raises:
            S3Exception: the connection broke, or S3 refused; every later call raises it again.
            NotYet: in non-blocking mode: more is to come.
            WouldBlock: in non-blocking mode: more is to come, in blocking mode, which the connection is in from now on.
        """
        if self._failure is not None:
            raise self._failure
        try:
            result, error, reusable = self._receive(consume, error_of)
        except (NotYet, WouldBlock):
            raise
        except BaseException as failure:
            self._connection.set_nonblocking(None)
            self.discard()
            self._failure = failure
            if self._is_stale(failure):
                self._failure = StaleConnection(str(failure))
                raise self._failure from failure
            raise
        self._token.leave(self._connection)
        if reusable:
            self._pool.release(self._route, self._connection)
        else:
            self._pool.discard(self._connection)
        self._figures.note_end(self._request, self.response)
        if error is not None:
            self._failure = error
            raise error
        return cast(_T, result)

    def _receive(
        self, consume: Callable[[Response], _T], error_of: Callable[[Response], S3Exception]
    ) -> tuple[_T | None, S3Exception | None, bool]:
        """The result or the error, and whether the connection can be used again."""
        response = self.response
        if response is None:
            response = self._early or Response(self._connection, bodyless=self._request.method == "HEAD")
            self.response = response
            response.waited = time.perf_counter() - self._begun
        good = 200 <= response.status < 300 or response.status in self._request.also_good
        if self._connection.is_nonblocking and not (good and response.is_sized):
            here = response.is_received
            self._connection.set_nonblocking(None)
            if not here:
                raise WouldBlock
        result = error = None
        if good:
            result = consume(response)
            self._connection.set_nonblocking(None)
        else:
            error = error_of(response)
        return result, error, response.finish() and self._early is None

    def _is_stale(self, error: BaseException) -> bool:
        # Bytes that do not begin like a response are late bytes of the response before.
        broke = isinstance(error, (S3ConnectionError, S3ProtocolError)) and not isinstance(error, S3TimeoutError)
        return broke and self._connection.used and self.response is None

    def discard(self) -> None:
        """End it without a response."""
        self.discard_spare()
        self._token.leave(self._connection)
        self._pool.discard(self._connection)
        self._figures.note_end(self._request, self.response)
