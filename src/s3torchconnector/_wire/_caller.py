"""The one way to S3: address, sign, send, receive, and retry if that can help.

``Caller.call`` is the only retry loop of the package. A request may be a function, which is called before each attempt,
so that a broken body resumes at its last good byte. Callers say what to do with a good response as a function that
receives the body while the connection is in use; if it raises, the connection is closed.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from s3torchconnector._activity import activity
from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3Exception, S3ThrottledError, S3WrongRegionError
from s3torchconnector._wire._account_headers import AccountHeaders
from s3torchconnector._wire._attempt import Attempt
from s3torchconnector._wire._authenticator import Authenticator
from s3torchconnector._wire._call_state import CallState, add_context
from s3torchconnector._wire._cancel import CancelledByCaller, CancelToken
from s3torchconnector._wire._checksum_support import ChecksumSupport
from s3torchconnector._wire._connection import StaleConnection
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._exchange import Exchange
from s3torchconnector._wire._figures import RETRIES, THROTTLES, Figures
from s3torchconnector._wire._head import HeadBuilder
from s3torchconnector._wire._hedging import Hedging
from s3torchconnector._wire._operations import Request, without_asking
from s3torchconnector._wire._pool import ConnectionPool, PoolIsFull
from s3torchconnector._wire._quirks import Quirk, Quirks
from s3torchconnector._wire._regions import Regions
from s3torchconnector._wire._request_log import log_request
from s3torchconnector._wire._response import Decompressed, Response, read_document
from s3torchconnector._wire._retry import RetryPolicy, RetryQuota, RetryRule
from s3torchconnector._wire._routes import Routes
from s3torchconnector._wire._throttle import Overloaded

senders: list[Callable[..., Exchange]] = [Exchange]  # the last one sends for the callers that are made; see ``_trace``
_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_ERROR_LIMIT = 1024 * 1024  # bytes of an error document


class Caller:
    """Sends the requests of one client in one process. Thread-safe; calls do not wait for each other.

    ``rule`` says when to retry; without one, the configuration's ``max_attempts`` does. ``pool`` is shared with other
    callers and closed by its owner; without one, the caller makes a pool of its own.
    """

    def __init__(
        self,
        region: str,
        endpoint: str | None,
        config: S3ClientConfig,
        user_agent: str,
        rule: RetryRule | None = None,
        pool: ConnectionPool | None = None,
        figures: Figures | None = None,
    ) -> None:
        self._regions = Regions(region, endpoint, config)
        self._authenticator = Authenticator(config, region, self._request_session)
        self._pool = pool or ConnectionPool(config)
        self._has_own_pool = pool is None
        self.keeps_versions = config.keep_version
        self.checksums = ChecksumSupport(config.checksum, self._regions.is_aws)
        self.quirks = Quirks({Quirk.EQUAL_PARTS} if config.equal_parts else set())
        self._heads = HeadBuilder(user_agent, AccountHeaders(config), not self.checksums.off)
        self._routes = Routes(config.max_connections)
        self._config = config
        self._send = senders[-1]
        self.hedging = Hedging(config.hedge)
        self.figures = figures or Figures()
        self._rule = rule or RetryRule(RetryPolicy(config.max_attempts), RetryQuota())

    def __repr__(self) -> str:
        return f"<Caller [{self._pool!r} | {self._authenticator!r}{self._routes}]>"

    @property
    def encrypts(self) -> bool:
        """Whether its responses have to be decrypted."""
        return self._regions.encrypts

    @property
    def connections_are_wanted(self) -> bool:
        """Whether a thread waits for a connection; the pool calls its ``when_wanted`` when that begins."""
        return self._pool.are_wanted

    def lists_in_order(self, request: Request) -> bool:
        """Whether a listing is in key order and can start at any key; directory buckets offer neither.

        Raises:
            S3ConfigurationError: its bucket has no endpoint.
        """
        try:
            return self._regions.endpoint(request.bucket).service != "s3express"  # with or without sessions
        except S3Exception as error:
            add_context(error, request, 1)
            raise

    def demands_equal_parts(self, bucket: str) -> bool:
        """Whether all parts of an upload but the last must have one length: if configured, and on Cloudflare R2."""
        return self.quirks.has(bucket, Quirk.EQUAL_PARTS) or self._regions.is_r2(bucket)

    def send(self, request: Request, cancel: CancelToken, *, wait: bool, connect: bool) -> Exchange:
        """Send ``request`` once, for ``call`` or ``receive`` to receive, so that one thread can send many.

        Raises:
            PoolIsFull: all connections are in use, and ``wait`` is false.
            NoIdleConnection: a connection has to be opened, and ``connect`` is false.
            Overloaded: it would have to wait for a permit, which ``call`` does.
            NoCredentialsYet: it would have to wait for credentials, which ``call`` does.
            S3Exception: it could not be sent.
        """
        endpoint = self._regions.endpoint(request.bucket)
        route, throttle = self._routes.to(endpoint)
        if throttle.active:
            raise Overloaded("requests to this endpoint have to wait for a permit")
        deadline = Deadline(cancel, time.perf_counter() + self._config.operation_timeout, wait, connect)
        identity = self._authenticator.identity_for(request, endpoint, None)
        return self._send_attempt(Attempt(request, endpoint, route, identity), deadline)

    def connect(self, bucket: str, cancel: CancelToken) -> None:
        """Open a connection for a later ``send``, unless as many are in use as may be.

        Raises:
            S3Exception: it could not be opened.
        """
        route, _ = self._routes.to(self._regions.endpoint(bucket))
        deadline = Deadline(cancel, time.perf_counter() + self._config.operation_timeout, wait=False)
        with contextlib.suppress(PoolIsFull):
            self._pool.open_ahead(route, deadline)

    @activity("{}", "state")
    def call(
        self,
        request: Request | Callable[[], Request],
        consume: Callable[[Response], _T],
        cancel: CancelToken | None = None,
        sent: Exchange | None = None,
        limit: float = math.inf,
    ) -> _T:
        """Send ``request`` until S3 sends a good response, and return what ``consume`` makes of that.

        ``sent`` is the first attempt, if ``send`` has sent it. ``limit`` seconds may be below ``operation_timeout``.

        Raises:
            S3Exception: all attempts failed, or a retry cannot help.
            CancelledByCaller: ``cancel`` was cancelled.
        """
        first = request if isinstance(request, Request) else request()
        state = CallState(first, sent, cancel or CancelToken(), self._config.operation_timeout, limit)
        try:
            while True:
                try:
                    result = self._try_once(state, consume)
                    if state.unasked is not None:
                        self._heads.stop_asking(state.request.bucket)
                        self.checksums.note_unasked(state.request.bucket, state.unasked)
                    self._rule.quota.earn()
                    self._routes.tolerance.earn()
                    return result
                except CancelledByCaller:
                    raise
                except S3Exception as error:
                    state.deadline.token.check()
                    delay = self._delay_after(error, state)
                state.deadline.token.wait(delay)
                if not isinstance(request, Request):
                    state.request = request()
                if state.unasked is not None:
                    state.request = without_asking(state.request)
        finally:
            state.end()

    def receive(self, exchange: Exchange, request: Request, consume: Callable[[Response], _T]) -> _T:
        """Receive the response to what ``send`` has sent, without waiting (``Exchange.set_nonblocking``).

        Raises:
            NotYet: more is to come.
            S3Exception: it failed; ``call`` with ``sent`` goes on from there.
        """
        result = exchange.receive(consume, partial(self._error_of, request))
        self._rule.quota.earn()
        self._routes.tolerance.earn()
        if _log.isEnabledFor(logging.DEBUG):
            log_request(_log, request, exchange, 1)
        return result

    def close(self) -> None:
        """Close the caller's own pool, if it has one: idle connections now, others when their request ends."""
        if self._has_own_pool:
            self._pool.close()

    def forget(self) -> None:
        """In a forked child: drop the parent's connections without disturbing them."""
        self._pool.forget()

    def _try_once(self, state: CallState, consume: Callable[[Response], _T]) -> _T:
        request = state.request
        endpoint = self._regions.endpoint(request.bucket)
        state.identity = self._authenticator.identity_for(request, endpoint, state.deadline)
        route, throttle = self._routes.to(endpoint)
        attempt = Attempt(request, endpoint, route, state.identity, state.attempts + 1)
        sent, state.sent = state.sent, None
        if sent is None and throttle.active and request.operation != "CreateSession":
            state.acquire_permit(throttle)  # CreateSession needs none: requests that hold permits wait for it

        def receive(response: Response) -> _T:
            state.succeeded()
            return consume(response)

        try:
            return self._send_and_receive(sent, attempt, state, receive)
        except S3ThrottledError:
            self.figures.add(THROTTLES)
            in_flight = self._pool.in_use + 1
            throttle.refused(in_flight, state.since, connections=in_flight + self._pool.idle)
            raise

    def _send_and_receive(
        self, sent: Exchange | None, attempt: Attempt, state: CallState, consume: Callable[[Response], _T]
    ) -> _T:
        try:
            exchange = sent or self._send_attempt(attempt, state.deadline)
            return self._receive_response(exchange, state, consume)
        except StaleConnection:
            # The server had closed an idle connection: that is no failure of the request.
            state.resent = True
            exchange = self._send_attempt(attempt, state.deadline, fresh=True)
            return self._receive_response(exchange, state, consume)

    def _delay_after(self, error: S3Exception, state: CallState) -> float:
        """Seconds until the next attempt: 0 if the cause of the refusal could be removed.

        Raises:
            S3Exception: there is no next attempt.
        """
        self._heads.account.redact(state.request, error)
        cause = error.code or type(error).__name__
        if cause not in state.recovered and self._recover(error, state):
            state.recovered.add(cause)
            return 0.0
        if state.unasked is None and self._heads.may_ask(state.request) and self.checksums.may_explain(error):
            state.unasked = error
            return 0.0
        delay = state.delay_after(error, self._rule)
        self.figures.add(RETRIES)
        _log.info("%s failed (%s), attempt %d follows in %.2f s", state.request, error, state.attempts + 1, delay)
        return delay

    def _recover(self, error: S3Exception, state: CallState) -> bool:
        """Remove the cause of a refusal, if that is possible from here; see also ``Authenticator.recover``."""
        if isinstance(error, Decompressed):
            return self._heads.accept_gzip(state.request.bucket)
        if isinstance(error, S3WrongRegionError):
            return self._regions.follow(error, state.request.bucket)
        try:
            return self._authenticator.recover(error, state.identity, state.request, state.deadline)
        except S3Exception as failure:
            add_context(failure, state.request, state.attempts + 1)
            raise

    def _send_attempt(self, attempt: Attempt, deadline: Deadline, *, fresh: bool = False) -> Exchange:
        deadline.check()
        timestamp = self._authenticator.timestamp()
        head = self._heads.build(attempt.request, attempt.endpoint, *attempt.identity, timestamp, attempt.route.proxy)
        return self._send(self._pool, self.figures, attempt, head, deadline, fresh=fresh)

    def _receive_response(self, exchange: Exchange, state: CallState, consume: Callable[[Response], _T]) -> _T:
        state.since = exchange.started
        if state.request.operation == "GetObject":
            exchange.await_response(self.hedging, self._config.read_timeout)
        result = exchange.receive(consume, partial(self._error_of, state.request))
        if _log.isEnabledFor(logging.DEBUG):
            log_request(_log, state.request, exchange, state.attempts + 1)
        return result

    def _error_of(self, request: Request, response: Response) -> S3Exception:
        """The error for an error response."""
        body = response.read(_ERROR_LIMIT)
        error = self._heads.account.error_of(request, response.status, response.headers, body)
        self._authenticator.note_clock(response.headers)
        _log.debug("%s: %d %s (request id %s)", request, response.status, error.code, error.request_id)
        return error

    def _request_session(self, request: Request) -> tuple[bytes, Mapping[str, str]]:
        return self.call(request, lambda response: (read_document(response), response.headers))
