"""Figures at intervals: nothing is counted twice or lost, and nothing hangs."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading

import pytest

from s3torchconnector import S3Client, metrics
from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector.metrics import Metrics
from s3torchconnector.testing import S3Server
from tests.reading.support import wait_until

REGION = "us-east-1"
LONG = 3600.0


def requests_in(found: list[Metrics]) -> int:
    return sum(each.request_count for each in found)


def test_each_request_is_in_one_call(s3_server: S3Server, bucket: str) -> None:
    found: list[Metrics] = []
    threads: set[str] = set()

    def note(figures: Metrics) -> None:
        found.append(figures)
        threads.add(threading.current_thread().name)

    with S3Client(REGION) as client:
        client.list_objects(bucket)
        with metrics.watch(note, seconds=0.005):
            for _ in range(50):
                list(client.list_objects(bucket))
            wait_until(lambda: requests_in(found) == 50)
            list(client.list_objects(bucket))
    assert requests_in(found) == 51
    assert "s3torchconnector metrics" in threads
    assert len(found) > 1
    after = len(found)
    list(client.list_objects(bucket))
    client.close()
    assert len(found) == after


def test_without_a_callback_it_logs_a_line(s3_server: S3Server, bucket: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "s3torchconnector.metrics"), S3Client(REGION) as client:
        watch = metrics.watch(seconds=LONG)
        list(client.list_objects(bucket))
        watch.close()
        watch.close()
    (record,) = [each for each in caplog.records if each.name == "s3torchconnector.metrics"]
    assert record.getMessage().startswith("1 requests, ")


def test_a_callback_that_fails_is_called_again(caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def fail(figures: Metrics) -> None:
        calls.append(figures)
        raise ValueError("no disk")

    with metrics.watch(fail, seconds=0.001):
        wait_until(lambda: len(calls) >= 3)
    assert "no disk" in caplog.text


def test_the_callback_may_close_it() -> None:
    made, closed = threading.Event(), threading.Event()
    watches: list[metrics.Watch] = []

    def close(_: Metrics) -> None:
        made.wait()
        watches[0].close()
        closed.set()

    watches.append(metrics.watch(close, seconds=0.001))
    made.set()
    assert closed.wait(30)


def test_a_forked_child_does_not_watch() -> None:
    calls: list[Metrics] = []
    with metrics.watch(calls.append, seconds=LONG) as watch:
        child = os.fork()
        if not child:
            watch.close()
            os._exit(len(calls))
        assert os.waitpid(child, 0)[1] == 0
    assert len(calls) == 1


def test_the_process_ends_although_a_callback_does_not() -> None:
    program = """
import threading
from s3torchconnector import metrics

called = threading.Event()

def hang(figures):
    called.set()
    threading.Event().wait()

metrics.watch(hang, seconds=0.001)
called.wait()
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_intervals_are_positive(seconds: float) -> None:
    with pytest.raises(S3ConfigurationError, match="seconds="):
        metrics.watch(seconds=seconds)
