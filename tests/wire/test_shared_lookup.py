"""One look-up for many requests: how long each waits, and what happens if it fails."""

from __future__ import annotations

import _thread
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from s3torchconnector._errors import S3CredentialsError, S3Exception, S3TimeoutError
from s3torchconnector._wire import CancelledByCaller, CancelToken
from s3torchconnector._wire._deadline import Deadline
from s3torchconnector._wire._shared_lookup import SharedLookup


def within(seconds: float = 20.0, token: CancelToken | None = None) -> Deadline:
    return Deadline(token or CancelToken(), time.perf_counter() + seconds)


class Gate:
    """A look-up that ends when the test releases it."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.release = threading.Event()

    def __call__(self) -> str:
        self.begun.release()
        assert self.release.wait(20)
        return "found"


def waiting_for(lookup: SharedLookup[str], gate: Gate, count: int, threads: ThreadPoolExecutor) -> list[Future[str]]:
    futures = [threads.submit(lookup.join, gate, within()) for _ in range(count)]
    assert gate.begun.acquire(timeout=20)
    while lookup._current is None or len(lookup._current.waiting) < count:
        threading.Event().wait(0.001)
    return futures


def test_all_callers_share_one_lookup() -> None:
    lookup, gate = SharedLookup[str]("it"), Gate()
    with ThreadPoolExecutor(8) as threads:
        futures = waiting_for(lookup, gate, 8, threads)
        gate.release.set()
        assert [future.result(20) for future in futures] == ["found"] * 8
    assert not gate.begun.acquire(blocking=False)


def test_each_waiter_has_its_own_deadline() -> None:
    lookup, gate = SharedLookup[str]("it"), Gate()
    with ThreadPoolExecutor(8) as threads:
        futures = waiting_for(lookup, gate, 2, threads)
        with pytest.raises(S3TimeoutError, match="it took too long to look up"):
            lookup.join(gate, within(0.01))
        token = CancelToken()
        token.cancel()
        with pytest.raises(CancelledByCaller):
            lookup.join(gate, within(token=token))
        gate.release.set()
        assert [future.result(20) for future in futures] == ["found"] * 2


def test_each_waiter_gets_its_own_error() -> None:
    lookup = SharedLookup[str]("it")
    release = threading.Event()

    def fails() -> str:
        assert release.wait(20)
        raise S3CredentialsError("no", code="x") from KeyError("why")

    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(lookup.join, fails, within()) for _ in range(4)]
        while lookup._current is None or len(lookup._current.waiting) < 4:
            threading.Event().wait(0.001)
        release.set()
        errors = [future.exception(20) for future in futures]
    assert len({id(error) for error in errors}) == 4
    assert {(type(error), str(error), error.code) for error in errors} == {(S3CredentialsError, "no", "x")}  # type: ignore[union-attr]
    assert all(isinstance(error.__cause__, KeyError) for error in errors if error)


def test_a_lookup_is_repeated_as_long_as_somebody_waits() -> None:
    tries: list[int] = []

    def fails() -> str:
        tries.append(1)
        raise S3CredentialsError(f"failure {len(tries)}")

    often = SharedLookup[str]("it", attempts=lambda error: 4, uniform=lambda: 0.0)
    with pytest.raises(S3CredentialsError, match="failure 4"):
        often.join(fails, within())
    tries.clear()
    often.start(fails)  # for nobody
    deadline = time.perf_counter() + 20
    while often._current is not None and time.perf_counter() < deadline:
        threading.Event().wait(0.001)
    assert len(tries) == 1
    endless = SharedLookup[str]("it", attempts=lambda error: 10**9, uniform=lambda: 1.0)
    with pytest.raises(S3CredentialsError, match="failure"):
        endless.join(fails, within(0.05))
    deadline = time.perf_counter() + 20
    while endless._current is not None and time.perf_counter() < deadline:
        threading.Event().wait(0.001)
    assert endless._current is None


def test_an_unexpected_error_of_a_lookup_is_raised() -> None:
    lookup = SharedLookup[str]("the session")

    def fails() -> str:
        raise ZeroDivisionError("oh")

    for _ in range(2):
        with pytest.raises(S3Exception, match=r"the session could not be looked up: ZeroDivisionError\('oh'\)"):
            lookup.join(fails, within())


def test_without_threads_the_caller_looks_up_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", no_thread)
    assert SharedLookup[str]("it").join(lambda: "found", within()) == "found"


def test_an_interrupt_before_a_lookup_leaves_it_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    lookup = SharedLookup[str]("it")
    with monkeypatch.context() as patched:
        patched.setattr(_thread, "start_new_thread", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lookup.join(lambda: "found", within())
    assert lookup.join(lambda: "found", within(5.0)) == "found"
