"""Reads and writes large objects as checkpoints are: one process, many requests at a time."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

from s3torchconnector._cli._bench._limits import Share
from s3torchconnector._cli._bench._measurement import Report, Settings
from s3torchconnector._cli._connection import Connection
from s3torchconnector._cli._location import Location
from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo
from s3torchconnector._wire import tracing

_MIB = 1024**2
_FIRST_READ = 16 * _MIB  # bytes read at once at first: how long it takes is not known
_FIRST_SAVE = 8 * _MIB
_MOST = 256 * _MIB  # bytes read at once
_PIECE = 16 * _MIB  # bytes written at once
_QUICK = 0.25  # seconds that a larger read may follow


def read(connection: Connection, place: Location, info: ObjectInfo, settings: Settings, share: Share) -> Report:
    """Read an object from its beginning, over and over, into the same memory."""
    memory = memoryview(bytearray(min(_MOST, info.size)))
    with (
        _reported(connection, settings, share) as (client, report),
        client.get_object(place.bucket, info.key, object_info=info) as reader,
    ):

        def step(size: int) -> int:
            if reader.tell() == info.size:
                reader.seek(0)
            return reader.readinto(memory[:size])

        _repeat(step, report, share)
    return report


def save(connection: Connection, place: Location, settings: Settings, share: Share) -> Report:
    """Write an object, over and over. Each is as large as can be stored in the time that is left, as far as is known.

    A writer accepts 128 MiB at once, before they are sent, so only stored bytes count.
    """
    data = memoryview(os.urandom(_MIB) * (_PIECE // _MIB))
    with _reported(connection, settings, share) as (client, report):
        until, left, size, now = report.began + share.seconds, share.bytes, _FIRST_SAVE, 0.0
        while left > 0 and now < until:
            before = time.perf_counter()
            with client.put_object(place.bucket, place.key) as writer:
                size = min(size, left)
                for start in range(0, size, _PIECE):
                    writer.write(data[: min(_PIECE, size - start)])
            now = time.perf_counter()
            report.add(now, size)
            left -= size
            size = max(_FIRST_SAVE, int(size / (now - before) * (until - now)))
    return report


def _repeat(step: Callable[[int], int], report: Report, share: Share) -> None:
    """Repeat a step, at least once, with more bytes as long as it is quick."""
    until, left, size, now = report.began + share.seconds, share.bytes, _FIRST_READ, 0.0
    while left > 0 and now < until:
        before = time.perf_counter()
        done = step(min(size, left))
        now = time.perf_counter()
        report.add(now, done)
        left -= done
        if now - before < _QUICK:
            size = min(_MOST, 2 * size)


@contextlib.contextmanager
def _reported(connection: Connection, settings: Settings, share: Share) -> Iterator[tuple[S3Client, Report]]:
    timeout = max(30.0, share.seconds)
    with tracing() as records:
        with connection.opened(**settings.of_client(), operation_timeout=timeout) as client:
            report, cpu = Report(time.perf_counter()), time.process_time()
            yield client, report
            report.cpu_seconds = time.process_time() - cpu
        report.requests.take(records)
