"""The one way to S3: address, sign, send, receive, and try again where that helps.

``Caller.call`` is the one retry loop of the package. A request may be a function, asked again before each attempt, so
that a broken body is resumed at its last good byte. Callers state what to do with a good answer as a function that
receives the body while the connection is held; whatever it raises ends the connection.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, TypeVar

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import (
    S3Exception,
    S3ThrottledError,
    S3WrongRegionError,
)
from s3torchconnector._identity import Endpoint, EndpointResolver
from s3torchconnector._uri import display_uri
from s3torchconnector._wire._authenticator import Authenticator, Identity
from s3torchconnector._wire._call_state import CallState, complete
from s3torchconnector._wire._cancel import CancelledByCaller, CancelToken
from s3torchconnector._wire._checksum_support import ChecksumSupport
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._dialer import Address
from s3torchconnector._wire._exchange import ClosedMeanwhile, Exchange
from s3torchconnector._wire._head import HeadBuilder
from s3torchconnector._wire._hedging import Hedging
from s3torchconnector._wire._operations import Request
from s3torchconnector._wire._pool import ConnectionPool, PoolIsFull
from s3torchconnector._wire._proxy import proxy_for
from s3torchconnector._wire._response import Response, read_document
from s3torchconnector._wire._retry import RetryPolicy, RetryQuota, RetryRule
from s3torchconnector._wire._service_errors import service_error
from s3torchconnector._wire._throttle import Overloaded, Throttle

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_ERROR_LIMIT = 1024 * 1024  # bytes of an error document


class _Attempt(NamedTuple):
    """One attempt: the request, where it goes, who signs, and which attempt it is."""

    request: Request
    endpoint: Endpoint
    address: Address
    identity: Identity
    number: int


class Caller:
    """Carries requests of one client in one process. Any thread may call; calls do not wait for each other.

    ``rule`` says when to try again; without one, the configuration's ``max_attempts`` does. ``pool`` has connections
    that others use as well, and that are theirs to close; without one, the caller has its own.
    """

    def __init__(
        self,
        region: str,
        endpoint: str | None,
        config: S3ClientConfig,
        user_agent: str,
        rule: RetryRule | None = None,
        pool: ConnectionPool | None = None,
    ) -> None:
        self._resolver_for = partial(EndpointResolver, endpoint=endpoint, config=config)
        self._endpoints = self._resolver_for(region)
        self._moved: dict[str, tuple[str, EndpointResolver]] = {}  # buckets that turned out to be in another region
        self._authenticator = Authenticator(config, region, self._request_session)
        self._pool = pool or ConnectionPool(config)
        self._has_own_pool = pool is None
        self.checksums = ChecksumSupport(config.checksum)
        self._heads = HeadBuilder(user_agent, config.requester_pays, not self.checksums.off)
        self._routes: dict[tuple[str, str, int], tuple[Address, Throttle]] = {}
        self._max_connections = config.max_connections
        self.hedging = Hedging(config.hedge)
        self._read_timeout = config.read_timeout
        self._operation_timeout = config.operation_timeout
        self._rule = rule or RetryRule(RetryPolicy(config.max_attempts), RetryQuota())

    @property
    def encrypts(self) -> bool:
        """Whether what it receives has to be decrypted."""
        return self._endpoints.encrypts

    @property
    def connections_are_wanted(self) -> bool:
        """Whether somebody waits for a connection; the pool's ``when_wanted`` is called when that begins."""
        return self._pool.are_wanted

    def lists_in_order(self, request: Request) -> bool:
        """Whether a listing comes in the order of keys, and can begin at any of them: not of a directory bucket.

        Raises:
            S3ConfigurationError: there is no endpoint for its bucket.
        """
        try:
            return self._endpoint(request.bucket).service != "s3express"  # with or without sessions
        except S3Exception as error:
            complete(error, request, 1)
            raise

    def begin(self, request: Request, cancel: CancelToken, *, wait: bool, connect: bool) -> Exchange:
        """Send ``request`` once, for ``call`` to receive: so that many can be on their way from one thread.

        Raises:
            PoolIsFull: all connections are in use, and ``wait`` is false.
            NoneIdle: a connection has to be opened, and ``connect`` is false.
            Overloaded: it would have to wait for its turn; ``call`` does.
            NobodyYet: it would have to wait for credentials; ``call`` does.
            S3Exception: it could not be sent.
        """
        endpoint = self._endpoint(request.bucket)
        address, throttle = self._route(endpoint)
        if throttle.active:
            raise Overloaded("requests to this endpoint have to wait for their turn")
        deadline = Deadline(cancel, time.perf_counter() + self._operation_timeout, wait, connect)
        identity = self._authenticator.identity_for(request, endpoint, None)
        return self._send(_Attempt(request, endpoint, address, identity, 1), deadline)

    def connect(self, bucket: str, cancel: CancelToken) -> None:
        """Open a connection that ``begin`` will find, unless all are in use.

        Raises:
            S3Exception: it could not be opened.
        """
        address, _ = self._route(self._endpoint(bucket))
        deadline = Deadline(cancel, time.perf_counter() + self._operation_timeout, wait=False)
        with contextlib.suppress(PoolIsFull):
            self._pool.open_ahead(address, deadline)

    def call(
        self,
        request: Request | Callable[[], Request],
        consume: Callable[[Response], _T],
        cancel: CancelToken | None = None,
        begun: Exchange | None = None,
        limit: float = math.inf,
    ) -> _T:
        """Send ``request`` until S3 answers well, and return what ``consume`` makes of that answer.

        ``begun`` is the first attempt, where ``begin`` has sent it already. ``limit`` is how many seconds it may take,
        if that is less than ``operation_timeout``.

        Raises:
            S3Exception: its attempts are used up, or trying again cannot help.
            CancelledByCaller: ``cancel`` was.
        """
        first = request if isinstance(request, Request) else request()
        state = CallState(first, begun, cancel or CancelToken(), self._operation_timeout, limit)
        try:
            while True:
                try:
                    result = self._try_once(state, consume)
                    self._rule.quota.earn()
                    return result
                except CancelledByCaller:
                    raise
                except S3Exception as error:
                    state.deadline.token.check()
                    delay = self._delay_after(error, state)
                state.deadline.token.wait(delay)
                if not isinstance(request, Request):
                    state.request = request()
        finally:
            state.give_turn_back()

    def receive(self, exchange: Exchange, request: Request, consume: Callable[[Response], _T]) -> _T:
        """Receive the answer to what ``begin`` has sent, once, for a caller that does not wait (``Exchange.lend``).

        Raises:
            NotYet: more is to come.
            S3Exception: it failed; ``call`` with ``begun`` goes on from there.
        """
        result = exchange.receive(consume, partial(self._refused, request))
        self._rule.quota.earn()
        if _log.isEnabledFor(logging.DEBUG):
            _log_request(request, exchange, 1)
        return result

    def close(self) -> None:
        """Close its own pool, if it has one: idle connections now, those in use when their request ends."""
        if self._has_own_pool:
            self._pool.close()

    def forget(self) -> None:
        """In a forked child: let go of the parent's sockets without disturbing them."""
        self._pool.forget()

    def _try_once(self, state: CallState, consume: Callable[[Response], _T]) -> _T:
        request = state.request
        endpoint = self._endpoint(request.bucket)
        state.identity = self._authenticator.identity_for(request, endpoint, state.deadline)
        address, throttle = self._route(endpoint)
        attempt = _Attempt(request, endpoint, address, state.identity, state.attempts + 1)
        exchange, state.begun = state.begun, None
        if exchange is None and throttle.active and request.operation != "CreateSession":
            state.take_turn(throttle)  # CreateSession needs none: others wait for it with their turn in hand

        def receive(response: Response) -> _T:
            state.answered()
            return consume(response)

        try:
            return self._carry_out(exchange, attempt, state, receive)
        except S3ThrottledError:
            throttle.refused(self._pool.in_use + 1, state.since)
            raise

    def _carry_out(
        self, begun: Exchange | None, attempt: _Attempt, state: CallState, consume: Callable[[Response], _T]
    ) -> _T:
        try:
            exchange = begun or self._send(attempt, state.deadline)
            state.since = exchange.started
            return self._receive(exchange, attempt, consume)
        except ClosedMeanwhile:
            # That the server had closed a kept-alive connection is no failure of the request.
            state.resent = True
            exchange = self._send(attempt, state.deadline, fresh=True)
            state.since = exchange.started
            return self._receive(exchange, attempt, consume)

    def _delay_after(self, error: S3Exception, state: CallState) -> float:
        """Seconds until the next attempt: none if the cause of the refusal could be removed.

        Raises:
            S3Exception: there is no next attempt.
        """
        cause = error.code or type(error).__name__
        if cause not in state.mended and self._mend(error, state):
            state.mended.add(cause)
            return 0.0
        delay = state.delay_after(error, self._rule)
        _log.info("%s failed (%s), attempt %d follows in %.2f s", state.request, error, state.attempts + 1, delay)
        return delay

    def _send(self, attempt: _Attempt, deadline: Deadline, *, fresh: bool = False) -> Exchange:
        deadline.check()
        timestamp = self._authenticator.timestamp()
        head = self._heads.build(attempt.request, attempt.endpoint, *attempt.identity, timestamp, attempt.address.proxy)
        return Exchange(self._pool, attempt.address, attempt.request, head, deadline, fresh=fresh)

    def _receive(self, exchange: Exchange, attempt: _Attempt, consume: Callable[[Response], _T]) -> _T:
        if attempt.request.operation == "GetObject":
            exchange.await_answer(self.hedging, self._read_timeout)
        result = exchange.receive(consume, partial(self._refused, attempt.request))
        if _log.isEnabledFor(logging.DEBUG):
            _log_request(attempt.request, exchange, attempt.number)
        return result

    def _endpoint(self, bucket: str) -> Endpoint:
        moved = self._moved.get(bucket)
        return (moved[1] if moved else self._endpoints).resolve(bucket)

    def _mend(self, error: S3Exception, state: CallState) -> bool:
        """Remove the cause of a refusal, if that is in our hands; see also ``Authenticator.mend``."""
        bucket = state.request.bucket
        if not isinstance(error, S3WrongRegionError):
            try:
                return self._authenticator.mend(error, state.identity, state.request, state.deadline)
            except S3Exception as failure:
                complete(failure, state.request, state.attempts + 1)
                raise
        if error.region and self._moved.get(bucket, ("", None))[0] != error.region:
            self._moved[bucket] = error.region, self._resolver_for(error.region)
            _log.info("%s is in region %s, where its requests go from now on", display_uri(bucket), error.region)
        return bool(error.region)

    def _route(self, endpoint: Endpoint) -> tuple[Address, Throttle]:
        """Where a request goes, and whether that is overloaded."""
        key = (endpoint.scheme, endpoint.host, endpoint.port)
        route = self._routes.get(key)
        if route is None:
            route = Address(*key, proxy_for(*key)), Throttle(self._max_connections)
            route = self._routes.setdefault(key, route)
        return route

    def _refused(self, request: Request, response: Response) -> S3Exception:
        """What an error answer means."""
        body = response.read(_ERROR_LIMIT)
        error = service_error(request, response.status, response.headers, body)
        self._authenticator.notice(response.headers)
        _log.debug("%s: %d %s (request id %s)", request, response.status, error.code, error.request_id)
        return error

    def _request_session(self, request: Request) -> tuple[bytes, Mapping[str, str]]:
        return self.call(request, lambda response: (read_document(response), response.headers))


def _log_request(request: Request, exchange: Exchange, attempt: int) -> None:
    response = exchange.response
    assert response is not None
    _log.debug(
        "%s %s range=%s status=%d bytes=%d ms=%.1f attempt=%d request_id=%s",
        request.operation,
        display_uri(request.bucket, request.key),
        request.headers.get("range", "-"),
        response.status,
        response.received or sum(map(len, request.body)),
        (time.perf_counter() - exchange.started) * 1e3,
        attempt,
        response.headers.get("x-amz-request-id", "-"),
    )
