"""Garbage collection may strike at any allocation, on any thread: it must neither wait nor be lost."""

from __future__ import annotations

import gc
import threading

import psutil
import pytest

from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer._budget import ByteBudget
from s3torchconnector._wire import CancelledByCaller, CancelToken
from s3torchconnector.testing import S3Server
from tests.resources import threads_become

PATIENCE = 30.0


def test_the_end_of_a_client_waits_for_none_of_its_threads() -> None:
    before = psutil.Process().num_threads()
    client = S3Client("us-east-1", endpoint="http://127.0.0.1:1")
    release, over = threading.Event(), threading.Event()
    in_time = []

    def job() -> None:
        in_time.append(release.wait(PATIENCE))
        over.set()

    client.runtime().workers.run(job)
    del client
    gc.collect()
    release.set()  # what the thread waits for is held by the one on which the client ended
    assert over.wait(PATIENCE)
    assert in_time == [True]
    assert threads_become(before)


def test_a_listing_keeps_its_client(s3_server: S3Server, bucket: str) -> None:
    for number in range(2500):
        (s3_server.folder / bucket / f"{number:04}").write_bytes(b"")
    found = 0
    for page in S3Client("us-east-1", endpoint=s3_server.endpoint).list_all(bucket):
        gc.collect()
        found += len(page)
    assert found == 2500


def test_bytes_that_come_back_as_a_wait_begins_are_seen() -> None:
    budget = ByteBudget(100)
    budget.take(100)
    given = []

    def may_overdraw() -> bool:  # asked last before the wait, under the lock: where a finaliser can give, too
        if not given:
            given.append(True)
            budget.give(60)
        return False

    budget.wait_take(50, may_overdraw)
    assert budget.taken == 90


def test_a_token_cancelled_as_a_wait_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    token = CancelToken()
    event = threading.Event

    def struck() -> threading.Event:
        monkeypatch.undo()
        token.cancel()
        return event()

    monkeypatch.setattr("threading.Event", struck)
    with pytest.raises(CancelledByCaller):
        token.wait(PATIENCE)
