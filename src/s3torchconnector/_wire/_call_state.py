"""What the retry loop has to remember of one operation, from its first attempt to its last."""

from __future__ import annotations

import time

from s3torchconnector._errors import S3ConnectionError, S3Exception, S3ServiceError, S3ThrottledError, S3TimeoutError
from s3torchconnector._wire._authenticator import Identity
from s3torchconnector._wire._cancel import CancelToken
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._exchange import Exchange
from s3torchconnector._wire._operations import Request
from s3torchconnector._wire._retry import RetryRule, is_retryable
from s3torchconnector._wire._throttle import TOO_LATE, Throttle

# The pause of a request that holds a permit grows for so many refusals, to 80 ms by default: the pace does the rest.
MOST_PACED_REFUSALS = 4


class CallState:
    """The state of one operation.

    Args:
        request: the first request.
        sent: the first attempt, if it was sent already.
        token: cancels the operation.
        timeout: seconds that any operation may take.
        limit: seconds that this one may take, if that is less.

    Attributes:
        request: the request of the current attempt.
        identity: who signs it.
        sent: an exchange that was sent and whose response has not been received.
        since: when the current attempt was sent, by ``time.perf_counter``.
        unasked: the refusal after which the object's checksum is not asked for; None if nothing of the kind happened.
        recovered: the causes of refusals that were removed; each is removed once.
        resent: whether the request was sent a second time because its connection was stale. That is no failure, but
            the first one may have arrived.
    """

    def __init__(
        self, request: Request, sent: Exchange | None, token: CancelToken, timeout: float, limit: float
    ) -> None:
        self.request = request
        self.identity = Identity(None, None)
        self.sent = sent
        self._started = self.since = sent.started if sent else time.perf_counter()
        self._timeout = timeout
        self._limit = limit
        self.deadline = Deadline(token, self._started + min(timeout, limit))
        self.recovered: set[str] = set()
        self.unasked: S3Exception | None = None
        self.resent = False
        self._failures = 0
        self._paused = token.paused  # seconds, at the last failure
        self._slow_downs = 0
        self._error: S3Exception | None = None  # the latest that says more than that time is up
        self._throttle: Throttle | None = None  # while this operation holds a permit
        self._is_paced = False  # whether the pause before the next attempt follows the throttle's pace

    def __str__(self) -> str:
        attempt = f" (attempt {self.attempts + 1}, {self.age():.1f} s after the first)" if self.attempts else ""
        return f"{self.request.description}{attempt}"

    def age(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self._started

    @property
    def attempts(self) -> int:
        """How many attempts have failed."""
        return self._failures + self._slow_downs

    def acquire_permit(self, throttle: Throttle) -> None:
        """Wait for a permit of an overloaded endpoint, unless one is held already, and for the moment to use it.

        Raises:
            S3TimeoutError: that moment would come after the deadline.
        """
        if self._throttle is not throttle:
            self.release_permit()
            if throttle.acquire(self.deadline):
                self._throttle, self._is_paced = throttle, False
        if self._throttle is not None and not self._is_paced:
            pause, left = self._throttle.pause(), self.deadline.left()
            if pause > 0.0:
                self.deadline.token.wait(max(0.0, min(pause, left)))
            if pause > left:
                raise S3TimeoutError(TOO_LATE)
        self._is_paced = False

    def succeeded(self) -> None:
        """Note a good response, and release the permit if one is held."""
        throttle, self._throttle = self._throttle, None
        if throttle is not None:
            throttle.succeeded()

    def release_permit(self) -> None:
        """Release the permit, if one is held: the operation is over, or goes to another endpoint."""
        throttle, self._throttle = self._throttle, None
        if throttle is not None:
            throttle.release()

    def end(self) -> None:
        """The operation is over. The traceback of its latest error, which is kept here, would keep this, too."""
        self.release_permit()
        self._error = None

    def delay_after(self, error: S3Exception, rule: RetryRule) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            S3Exception: there is no next attempt, because ``error`` is final or because time is up.
        """
        if isinstance(error, S3ThrottledError):
            self._slow_downs += 1
            in_a_row = min(self._slow_downs, MOST_PACED_REFUSALS) if self._throttle else None
            delay = rule.delay(error, self._slow_downs, in_a_row)
            if delay is not None and self._throttle is not None:
                delay, self._is_paced = max(delay, self._throttle.pause()), True
        else:
            self.release_permit()
            paused, self._paused = self._paused, self.deadline.token.paused
            if isinstance(error, S3ConnectionError) and self._paused > paused:
                return 0.0  # the server hung up while the program did not read; each attempt received more
            self._failures += 1
            delay = rule.delay(error, self._failures)
        error.resent = self.resent
        left = self.deadline.left()
        if self._error is None or left > 0 or type(error) is not S3TimeoutError:
            self._error = error
        if is_retryable(error) and left <= (delay or 0.0):
            raise self._timed_out(self._error) from self._error
        if delay is None:
            add_context(error, self.request, self.attempts)
            raise error
        return delay

    def _timed_out(self, error: S3Exception) -> S3TimeoutError:
        within, advice = f"operation_timeout={self._timeout:g} s", ""
        if self._limit < self._timeout:
            within = f"{self._limit:g} s"
        else:
            advice = "; if it is only slow, raise operation_timeout in S3ClientConfig"
        timeout = S3TimeoutError(
            f"{self.request} did not complete within {within} (stopped after "
            f"{time.perf_counter() - self._started:.1f} s). The endpoint may be overloaded or unreachable{advice}. "
            f"Last error: {error}"
        )
        add_context(timeout, self.request, self.attempts)
        return timeout


def add_context(error: S3Exception, request: Request, attempts: int) -> None:
    """Tell an error that is about to be raised which request it belongs to."""
    error.operation, error.attempts = request.operation, attempts
    error.bucket, error.key = request.bucket, request.key or None
    if not isinstance(error, S3ServiceError) and not error.message.startswith(request.operation):
        error.message = f"{request}: {error.message}"
    if attempts > 1:
        error.message += f" (after {attempts} attempts)"
