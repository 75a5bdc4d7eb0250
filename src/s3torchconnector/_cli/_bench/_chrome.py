"""A trace as JSON in the Chrome trace event format, which Perfetto and ``chrome://tracing`` open. Pure.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU: times are microseconds; an event of
phase X is a slice with a duration, M is a name. Slices of one thread may only be nested, so each connection is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from s3torchconnector._uri import display_uri
from s3torchconnector._wire import TracedRequest


def chrome_trace(requests: Sequence[TracedRequest], processes: Mapping[int, str]) -> dict[str, Any]:
    """The document.

    Args:
        requests: in any order.
        processes: names of processes, by their ids.
    """
    ordered = sorted(requests, key=lambda each: each.sent)
    begin = min((each.asked for each in ordered), default=0.0)
    events: list[dict[str, Any]] = []
    for process in dict.fromkeys(each.process for each in ordered):
        name = processes.get(process, f"process {process}")
        events.append({"name": "process_name", "ph": "M", "pid": process, "tid": 0, "args": {"name": name}})
    for process, connection in dict.fromkeys((each.process, each.connection) for each in ordered):
        name = f"connection {connection}"
        events.append({"name": "thread_name", "ph": "M", "pid": process, "tid": connection, "args": {"name": name}})
    for each in ordered:
        events += _slices(each, begin)
    return {"displayTimeUnit": "ms", "traceEvents": events}


def _slices(request: TracedRequest, begin: float) -> Iterator[dict[str, Any]]:
    """The request, and in it its two phases."""
    arguments = {
        "object": display_uri(request.bucket, request.key),
        "range": request.range,
        "status": request.status,
        "attempt": request.attempt,
        "bytes_sent": request.bytes_sent,
        "bytes_received": request.bytes_received,
        "waited_for_connection_ms": (request.sent - request.asked) * 1e3,
        "failure": request.failure,
    }
    yield _slice(request, request.operation, "request", request.sent - begin, request.ended - begin, arguments)
    begun = request.ended if request.first_byte is None else request.first_byte
    yield _slice(request, "wait for the first byte", "phase", request.sent - begin, begun - begin)
    if request.first_byte is not None:
        yield _slice(request, "receive", "phase", begun - begin, request.ended - begin)


def _slice(
    request: TracedRequest, name: str, kind: str, begin: float, end: float, arguments: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    event = {
        "name": name,
        "cat": kind,
        "ph": "X",
        "ts": round(begin * 1e6, 3),
        "dur": round((end - begin) * 1e6, 3),
        "pid": request.process,
        "tid": request.connection,
    }
    return event if arguments is None else {**event, "args": dict(arguments)}
