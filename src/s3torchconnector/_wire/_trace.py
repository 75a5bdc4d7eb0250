"""A trace: when each request was sent, when its response began and ended, and on which connection.

Clients that open their connections while a trace is on send their requests by exchanges that record times. Other
clients do nothing for traces.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

from s3torchconnector._errors import S3Exception, S3ServiceError
from s3torchconnector._wire._attempt import Attempt
from s3torchconnector._wire._caller import senders
from s3torchconnector._wire._connection import Connection
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._exchange import Exchange
from s3torchconnector._wire._figures import Figures
from s3torchconnector._wire._pool import ConnectionPool
from s3torchconnector._wire._response import Response

_T = TypeVar("_T")
_R = TypeVar("_R")


class TracedRequest(NamedTuple):
    """One request on one connection. Times are seconds by ``time.perf_counter``, which processes of a machine share.

    Attributes:
        operation: of S3, for example ``"GetObject"``.
        bucket, key: the object; the key is empty if the request is about the bucket.
        range: the bytes that were asked for, as in the header; empty if all were.
        attempt: 1 for the first.
        process: the id of the process that sent it.
        connection: its descriptor in that process. A connection serves one request at a time. After it was closed,
            another one may have the same number.
        asked: when a connection was asked for.
        sent: when the connection was there, and sending began.
        first_byte: when the response began; None if none did.
        ended: when the response was received, or the connection was closed.
        status: of the response; None if there was none.
        bytes_sent: of the body.
        bytes_received: of the body.
        failure: why it failed; empty if it did not.
    """

    operation: str
    bucket: str
    key: str
    range: str
    attempt: int
    process: int
    connection: int
    asked: float
    sent: float
    first_byte: float | None
    ended: float
    status: int | None
    bytes_sent: int
    bytes_received: int
    failure: str = ""


@contextmanager
def tracing() -> Iterator[list[TracedRequest]]:
    """Trace what clients send that open their connections in this block: a list that grows whenever a request ends."""
    records: list[TracedRequest] = []
    sender = partial(_TracedExchange, records)
    senders.append(sender)
    try:
        yield records
    finally:
        senders.remove(sender)


class _TracedExchange(Exchange):
    def __init__(
        self,
        records: list[TracedRequest],
        pool: ConnectionPool,
        figures: Figures,
        attempt: Attempt,
        head: bytes,
        deadline: Deadline,
        *,
        fresh: bool,
    ) -> None:
        self._records = records
        self._attempt = attempt
        self._first_byte: float | None = None
        self._is_noted = False
        self._times: dict[Connection, tuple[float, float]] = {}  # of a hedged request: when asked for, when sent
        self._asked = self.started = time.perf_counter()
        super().__init__(pool, figures, attempt, head, deadline, fresh=fresh)

    def hedge(self) -> int | None:
        asked = time.perf_counter()
        descriptor = super().hedge()
        if descriptor is not None and self._spare is not None:
            self._times[self._connection] = self._asked, self.started
            self._times[self._spare] = asked, asked
        return descriptor

    def keep_connection(self, descriptor: int) -> int | None:
        if self._first_byte is None:
            self._first_byte = time.perf_counter()
        return super().keep_connection(descriptor)

    def discard_spare(self) -> None:
        if self._spare is not None:
            self._note(self._spare, None, "not needed: the other connection was faster")
        super().discard_spare()

    def discard(self) -> None:
        if not self._is_noted:
            self._is_noted = True
            failure = sys.exc_info()[1]
            self._note(self._connection, self.response, "cancelled" if failure is None else _reason(failure))
        super().discard()

    def _receive(
        self, consume: Callable[[Response], _T], error_of: Callable[[Response], S3Exception]
    ) -> tuple[_T | None, S3Exception | None, bool]:
        result = super()._receive(partial(self._begin, consume), partial(self._begin, error_of))
        self._is_noted = True
        self._note(self._connection, self.response, "" if result[1] is None else _reason(result[1]))
        return result

    def _begin(self, consume: Callable[[Response], _R], response: Response) -> _R:
        if self._first_byte is None:
            self._first_byte = time.perf_counter()
        return consume(response)

    def _note(self, connection: Connection, response: Response | None, failure: str) -> None:
        request = self._request
        asked, sent = self._times.get(connection, (self._asked, self.started))
        self._records.append(
            TracedRequest(
                operation=request.operation,
                bucket=request.bucket,
                key=request.key,
                range=request.headers.get("range", ""),
                attempt=self._attempt.number,
                process=os.getpid(),
                connection=connection.fileno(),
                asked=asked,
                sent=sent,
                first_byte=None if response is None else self._first_byte,
                ended=time.perf_counter(),
                status=None if response is None else response.status,
                bytes_sent=sum(memoryview(buffer).nbytes for buffer in request.body),
                bytes_received=0 if response is None else response.received,
                failure=failure,
            )
        )


def _reason(failure: BaseException) -> str:
    return (isinstance(failure, S3ServiceError) and failure.code) or str(failure) or type(failure).__name__
