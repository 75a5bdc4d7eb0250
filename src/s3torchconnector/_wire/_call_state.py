"""One operation from its first attempt to its last: what the retry loop has to remember of it."""

from __future__ import annotations

import time

from s3torchconnector._errors import S3ConnectionError, S3Exception, S3ServiceError, S3ThrottledError, S3TimeoutError
from s3torchconnector._wire._authenticator import Identity
from s3torchconnector._wire._cancel import CancelToken
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._exchange import Exchange
from s3torchconnector._wire._operations import Request
from s3torchconnector._wire._retry import RetryRule, is_retryable
from s3torchconnector._wire._throttle import Throttle

_MODEST = 4  # refusals that the pause of who has a turn grows by, 80 ms at most by default: its pace does the rest


class CallState:
    """The state of one operation.

    Args:
        request: what is asked first.
        begun: the first attempt, where it was sent already.
        token: cancels the operation.
        timeout: seconds that any operation may take.
        limit: seconds that this one may take, if that is less.

    Attributes:
        request: what the current attempt asks.
        identity: who signs it.
        begun: an exchange that waits to be received.
        since: when the current attempt was sent, by ``time.perf_counter``.
        mended: the causes of refusals that were removed; each is, once.
        resent: whether a connection turned out closed, which is no failure; yet what went over it may have arrived.
    """

    def __init__(
        self, request: Request, begun: Exchange | None, token: CancelToken, timeout: float, limit: float
    ) -> None:
        self.request = request
        self.identity = Identity(None, None)
        self.begun = begun
        self._began = self.since = begun.started if begun else time.perf_counter()
        self._timeout = timeout
        self._limit = limit
        self.deadline = Deadline(token, self._began + min(timeout, limit))
        self.mended: set[str] = set()
        self.resent = False
        self._failures = 0
        self._excused = token.excused  # seconds, when it last failed
        self._put_off = 0  # by SlowDown
        self._throttle: Throttle | None = None  # while a turn is held
        self._is_paced = False  # whether the pause before the next attempt was its throttle's

    @property
    def attempts(self) -> int:
        """How many attempts have failed."""
        return self._failures + self._put_off

    def take_turn(self, throttle: Throttle) -> None:
        """Wait for a turn at an overloaded endpoint, unless it is held already, and until it may be used."""
        if self._throttle is not throttle:
            self.give_turn_back()
            if throttle.take_turn(self.deadline):
                self._throttle, self._is_paced = throttle, False
        if self._throttle is not None and not self._is_paced:
            pause, left = self._throttle.pause(), self.deadline.left()
            if pause > 0.0:
                self.deadline.token.wait(max(0.0, min(pause, left)))
            if pause > left:
                raise S3TimeoutError("its turn did not come")
        self._is_paced = False

    def answered(self) -> None:
        """S3 answered well."""
        throttle, self._throttle = self._throttle, None
        if throttle is not None:
            throttle.answered()

    def give_turn_back(self) -> None:
        """The operation is over, or goes elsewhere."""
        throttle, self._throttle = self._throttle, None
        if throttle is not None:
            throttle.give_back()

    def delay_after(self, error: S3Exception, rule: RetryRule) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            S3Exception: there is none, for ``error``'s sake or because there is no time for one.
        """
        if isinstance(error, S3ThrottledError):
            self._put_off += 1
            delay = rule.delay(error, self._put_off, min(self._put_off, _MODEST) if self._throttle else None)
            if delay is not None and self._throttle is not None:
                delay, self._is_paced = max(delay, self._throttle.pause()), True
        else:
            self.give_turn_back()
            excused, self._excused = self._excused, self.deadline.token.excused
            if isinstance(error, S3ConnectionError) and self._excused > excused:
                return 0.0  # the program let the server wait for so long that it went; more was received each time
            self._failures += 1
            delay = rule.delay(error, self._failures)
        error.resent = self.resent
        left = self.deadline.left()
        if is_retryable(error) and left <= (delay or 0.0):
            raise self._too_late(error) from error
        if delay is None:
            complete(error, self.request, self.attempts)
            raise error
        return delay

    def _too_late(self, error: S3Exception) -> S3TimeoutError:
        within, advice = f"operation_timeout={self._timeout:g} s", ""
        if self._limit < self._timeout:
            within = f"{self._limit:g} s"
        else:
            advice = " If it is only slow, raise operation_timeout in S3ClientConfig."
        late = S3TimeoutError(
            f"{self.request} was not done within {within}: it was given up after "
            f"{time.perf_counter() - self._began:.1f} s. Is the endpoint overloaded or unreachable?{advice} What came "
            f"last: {error}"
        )
        complete(late, self.request, self.attempts)
        return late


def complete(error: S3Exception, request: Request, attempts: int) -> None:
    """Give an error that is about to be raised its context."""
    error.operation, error.attempts = request.operation, attempts
    error.bucket, error.key = request.bucket, request.key or None
    if not isinstance(error, S3ServiceError) and not error.message.startswith(request.operation):
        error.message = f"{request}: {error.message}"
    if attempts > 1:
        error.message += f" (after {attempts} attempts)"
