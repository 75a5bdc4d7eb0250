"""When a request is retried, and after how long: the one place that decides it.

The policy is a frozen value; randomness is a parameter. Backoff has full jitter (a uniform draw up to an exponentially
growing bound, https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), so that hundreds of ranks do
not come back in step. All requests of a client share the quota. During an outage it runs out, and then retries wait for
the longest backoff plus a random half of it, instead of multiplying the load; an empty quota never ends a request. A
pause is never shorter than the server's ``Retry-After``, up to a minute.

SlowDown is no failure of a request. Permits (``_throttle``) bound its cost, not the quota, and a request that S3
throttles may be sent ``max_attempts`` times as often as one that fails. With the default, 100 attempts, requests get
through to a server that refuses nine of ten.
"""

import threading
from collections.abc import Callable
from typing import NamedTuple

from s3torchconnector._errors import (
    S3ConnectionError,
    S3Exception,
    S3ProtocolError,
    S3ServiceError,
    S3ThrottledError,
)
from s3torchconnector._jitter import jitter

RETRYABLE_STATUS = frozenset({429, 500, 502, 503, 504})
WRONG_CHECKSUM_CODES = frozenset({"BadDigest", "XAmzContentChecksumMismatch"})  # an upload arrived wrong
RETRYABLE_CODES = WRONG_CHECKSUM_CODES | {
    "RequestTimeout", "RequestTimeoutException", "SlowDown", "InternalError", "ServiceUnavailable", "OperationAborted",
    "ConditionalRequestConflict",
}  # fmt: skip
# Those of the standard retry mode of AWS SDKs: https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
THROTTLING_CODES = frozenset(
    {"SlowDown", "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled",
     "RequestThrottledException", "RequestLimitExceeded", "TooManyRequestsException", "BandwidthLimitExceeded",
     "LimitExceededException", "ProvisionedThroughputExceededException", "TransactionInProgressException",
     "PriorRequestNotComplete", "EC2ThrottledException"}
)  # fmt: skip
# A client that was asked to slow down retries few requests, each with a permit. Long pauses would leave an endpoint
# idle that admits requests one by one.
_SOONER_IF_THROTTLED = 10

# Of the longest pause, if a connection was refused: a server that restarts is away for half a minute, and with full
# jitter alone ten attempts may be over after six seconds.
_LEAST_IF_REFUSED = 0.75


def is_retryable(error: S3Exception) -> bool:
    """Whether trying the same request again can help."""
    if isinstance(error, S3ThrottledError):
        return True  # whatever the status: some services refuse with 400
    if isinstance(error, S3ServiceError):
        if error.code in WRONG_CHECKSUM_CODES and error.operation == "CompleteMultipartUpload":
            return False  # the bytes have arrived, and are not sent again
        return error.status in RETRYABLE_STATUS or error.code in RETRYABLE_CODES
    return isinstance(error, (S3ConnectionError, S3ProtocolError))


class RetryPolicy(NamedTuple):
    """How often, and how long apart (seconds)."""

    max_attempts: int
    first_backoff: float = 0.1
    longest_backoff: float = 10.0
    longest_retry_after: float = 60.0  # more is probably a mistake, and would end the operation
    # A malformed response may be an accident of a proxy; a server that is not an S3 server will not become one.
    max_protocol_attempts: int = 3

    def attempts_for(self, error: S3Exception) -> int:
        """How many attempts an operation that meets ``error`` may have."""
        if not is_retryable(error):
            return 1
        if isinstance(error, S3ProtocolError):
            return min(self.max_attempts, self.max_protocol_attempts)
        if isinstance(error, S3ThrottledError):
            return self.max_attempts**2
        return self.max_attempts

    def backoff_bound(self, error: S3Exception, failures: int) -> float:
        """The longest wait after this many failures like ``error``."""
        first = self.first_backoff / _SOONER_IF_THROTTLED if isinstance(error, S3ThrottledError) else self.first_backoff
        return min(self.longest_backoff, first * 2.0 ** min(failures - 1, 32))


class RetryQuota:
    """A token bucket that limits the load that retries add: each takes five tokens, each success returns one."""

    CAPACITY = 500
    COST = 5

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens = self.CAPACITY

    def spend(self) -> bool:
        """Take the tokens of one retry; False if there are too few."""
        with self._lock:
            if self._tokens < self.COST:
                return False
            self._tokens -= self.COST
            return True

    def earn(self) -> None:
        """Note a success. The check without the lock keeps the common case free of it."""
        if self._tokens < self.CAPACITY:
            with self._lock:
                self._tokens = min(self.CAPACITY, self._tokens + 1)


class RetryRule(NamedTuple):
    """The policy with what it depends on: the client's quota and a source of randomness in [0, 1)."""

    policy: RetryPolicy
    quota: RetryQuota
    uniform: Callable[[], float] = jitter

    def delay(self, error: S3Exception, failures: int, in_a_row: int | None = None) -> float | None:
        """Seconds to wait before the next attempt, or None if there is none.

        Args:
            error: the latest error.
            failures: how many attempts have failed; if ``error`` is SlowDown, how many were throttled.
            in_a_row: the number on which the pause depends, if it is not ``failures``.
        """
        if failures >= self.policy.attempts_for(error):
            return None
        if not isinstance(error, S3ThrottledError) and not self.quota.spend():
            pause = self.policy.longest_backoff * (1.0 + self.uniform() / 2.0)
        else:
            least = _LEAST_IF_REFUSED if isinstance(error.__cause__, ConnectionRefusedError) else 0.0
            pause = (least + self.uniform() * (1.0 - least)) * self.policy.backoff_bound(error, in_a_row or failures)
        if error.retry_after:
            # Added, not the maximum: all clients that were refused together got the same number.
            pause += min(error.retry_after, self.policy.longest_retry_after)
        return pause
