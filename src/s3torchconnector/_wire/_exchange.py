"""One request on one connection, and its answer.

Made, it has been sent; then it is received or discarded, once. In between, its descriptor can be waited on together
with others (see ``_transfer/_carrier``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar, cast

from s3torchconnector._errors import S3ConnectionError, S3Exception, S3TimeoutError
from s3torchconnector._wire._cancel import CancelToken
from s3torchconnector._wire._connection import NotYet
from s3torchconnector._wire._pool import Address, ConnectionPool
from s3torchconnector._wire._requests import Request
from s3torchconnector._wire._response import Response

_T = TypeVar("_T")


class ClosedMeanwhile(S3ConnectionError):
    """A connection that had served before broke without an answer: most likely the server had closed it, idle."""


class HasToWait(S3Exception):
    """What follows comes in no known number of bytes: a thread that may wait must receive it. Never reaches users."""


class Exchange:
    """A request that is on its way.

    Args:
        pool: where its connection comes from and goes back to.
        address: where it goes.
        request: what is asked.
        head: its head, addressed and signed.
        token: while it lasts, cancelling this token aborts the connection.
        fresh: whether it must have a new connection.
        wait: whether to wait for a connection while all are in use.

    Raises:
        PoolIsFull: they are, and ``wait`` is false.
        S3ConnectionError, S3TimeoutError: it could not be sent.
        CancelledByCaller: ``token`` was cancelled before.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        address: Address,
        request: Request,
        head: bytes,
        token: CancelToken,
        *,
        fresh: bool,
        wait: bool,
    ) -> None:
        self._pool = pool
        self._address = address
        self._request = request
        self._token = token
        self._early: Response | None = None
        self._failure: BaseException | None = None
        self._connection = pool.acquire(address, fresh=fresh, wait=wait)
        self.response: Response | None = None
        self.started = time.perf_counter()
        try:
            token.enter(self._connection)
            self._send(head)
        except BaseException as error:
            self.discard()
            if self._closed_meanwhile(error):
                raise ClosedMeanwhile(str(error)) from error
            raise

    def _send(self, head: bytes) -> None:
        try:
            self._connection.send(head, self._request.body)
        except S3TimeoutError:
            raise
        except S3ConnectionError as broken:
            # A server that refuses a body answers and closes before it is all sent: its reason beats "broken pipe".
            try:
                self._early = Response(self._connection)
            except S3Exception:
                raise broken from None
            if self._early.status < 300:
                raise

    def fileno(self) -> int:
        """The descriptor that becomes readable when the answer begins."""
        return self._connection.fileno()

    def abort(self) -> None:
        """Make ``receive`` fail at once."""
        self._connection.abort()

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
        except (NotYet, HasToWait):
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
            self._connection.lend(None)
            raise HasToWait
        result = error = None
        if good:
            result = consume(response)
            self._connection.lend(None)
        else:
            error = refused(response)
        return result, error, response.finish() and self._early is None

    def _closed_meanwhile(self, error: BaseException) -> bool:
        broke = isinstance(error, S3ConnectionError) and not isinstance(error, S3TimeoutError)
        return broke and self._connection.used and self.response is None

    def discard(self) -> None:
        """End it without an answer."""
        self._token.leave(self._connection)
        self._pool.discard(self._connection)
