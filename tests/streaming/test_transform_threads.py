"""``transform_threads``: the same samples and errors as without, in the same order, while transforms overlap."""

from __future__ import annotations

import gc
import itertools
import signal
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from s3torchconnector import S3Reader
from s3torchconnector._activity import activities
from s3torchconnector.errors import S3ConfigurationError, S3FormatError, S3NotFoundError
from s3torchconnector.s3dataloader import S3DataLoader
from s3torchconnector.s3manifest import S3Manifest
from s3torchconnector.s3streaming_dataset import S3StreamingDataset
from s3torchconnector.testing import S3Server
from tests.reading.support import wait_until
from tests.reading.test_reader_fork import Child
from tests.servers.warm import WarmPython
from tests.streaming.support import loading, number, numbered, options

COUNT = 53
SECONDS = 20.0


@pytest.fixture(scope="module")
def manifest(s3_server: S3Server) -> S3Manifest:
    """Objects that hold their numbers."""
    s3_server.make_bucket("threads")
    return S3Manifest.from_prefix(numbered(s3_server, "threads", COUNT), **options(s3_server))


def dataset_of(manifest: S3Manifest, **changes: Any) -> S3StreamingDataset:
    defaults = {"transform": number, "batch_size": 4, "seed": 7, "transform_threads": 3}
    return S3StreamingDataset(manifest, **{**defaults, **changes})


def of_some(reader: S3Reader) -> int:
    value = number(reader)
    if value % 10 == 3:
        raise ValueError(f"cannot identify image file {value}")
    if value == 17:
        raise StopIteration
    return value


def outcomes(samples: Iterator[Any]) -> list[Any]:
    """What each call yields: a sample, or the text of an error, up to the end."""
    found: list[Any] = []
    while len(found) < 2 * COUNT:
        try:
            found.append(next(samples))
        except StopIteration:
            break
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}".splitlines()[0])
    return found


def transform_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("s3torchconnector transform")]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("on_error", ["raise", "replace"])
def test_samples_and_errors_are_the_same_as_with_one_thread(manifest: S3Manifest, workers: int, on_error: str) -> None:
    found = []
    most = 3 if not workers else 100  # which of two workers is the one that exceeds it is chance
    for threads in (0, 1, 5):
        dataset = dataset_of(manifest, transform=of_some, on_error=on_error, transform_threads=threads, max_errors=most)
        with loading(dataset, num_workers=workers) as loader:
            found.append(outcomes(iter(loader)))
            found[-1].append(loader.state_dict())
        if not workers:
            samples = dataset_of(
                manifest, transform=of_some, on_error=on_error, transform_threads=threads, max_errors=most
            )
            found[-1].append(outcomes(iter(samples)))
            found[-1].append(samples.state_dict())
    assert found[1] == found[0]
    assert found[2] == found[0]
    if on_error == "raise" or not workers:
        assert any(isinstance(each, str) for each in found[0])  # there were errors


def test_stats_are_the_same_as_with_one_thread(manifest: S3Manifest) -> None:
    found = []
    for threads in (0, 3):
        loader = S3DataLoader(
            dataset_of(manifest, transform=of_some, on_error="replace", transform_threads=threads), collate_fn=list
        )
        list(loader)
        stats = loader.stats()
        assert stats["transform_seconds"] > 0
        found.append({name: stats[name] for name in ("samples", "bytes", "errors", "replaced")})
    assert found[0] == found[1]


def test_an_object_that_is_gone_is_an_error_in_its_place(s3_server: S3Server, bucket: str) -> None:
    manifest = S3Manifest.from_prefix(numbered(s3_server, bucket, 5), **options(s3_server))
    manifest._client.delete_object(bucket, "data/0003")
    samples = iter(dataset_of(manifest, shuffle=False))
    assert [next(samples) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(S3NotFoundError, match="data/0003"):
        next(samples)
    assert list(samples) == [4]


class Gate:
    """A transform that waits in objects of some numbers, and counts how many it has begun."""

    def __init__(self, *numbers: int) -> None:
        self.begun: list[int] = []
        self.open = threading.Event()
        self._numbers = numbers

    def __call__(self, reader: S3Reader) -> int:
        value = number(reader)
        self.begun.append(value)
        if value in self._numbers:
            assert self.open.wait(SECONDS)
        return value


def test_transforms_overlap_and_samples_keep_their_order(manifest: S3Manifest) -> None:
    gate = Gate(0)

    def transform(reader: S3Reader) -> int:
        value = gate(reader)
        if value == 1:
            gate.open.set()  # the first one goes on once the second has been made
        return value

    assert list(dataset_of(manifest, transform=transform, shuffle=False)) == list(range(COUNT))


def test_no_more_is_made_ahead_than_was_said(manifest: S3Manifest) -> None:
    for batch_size, threads, ahead in ((10, 2, 10), (2, 4, 8)):
        gate = Gate()
        samples = iter(
            dataset_of(manifest, transform=gate, batch_size=batch_size, transform_threads=threads, shuffle=False)
        )
        for taken in (1, 2, 3):
            next(samples)
            wait_until(lambda taken=taken, gate=gate, ahead=ahead: len(gate.begun) == taken + ahead)  # type: ignore[misc]
        gate.open.set()
        assert list(samples) == list(range(3, COUNT))


def test_an_interrupt_costs_one_sample_and_no_thread(manifest: S3Manifest) -> None:
    gate = Gate(2)
    samples = iter(dataset_of(manifest, transform=gate, shuffle=False, transform_threads=2))
    assert [next(samples), next(samples)] == [0, 1]

    def interrupt() -> None:
        wait_until(lambda: any("waits for a thread that makes a sample" in does for _, does in activities()))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        next(samples)
    thread.join()
    gate.open.set()
    assert list(samples) == list(range(3, COUNT))
    wait_until(lambda: not transform_threads())


@pytest.mark.parametrize("how", ["dropped", "ended", "error"])
def test_no_thread_is_left(manifest: S3Manifest, how: str) -> None:
    wait_until(lambda: not transform_threads())
    gate = Gate(5)
    dataset = dataset_of(manifest, transform=of_some if how == "error" else gate, shuffle=False)
    samples = iter(dataset)
    assert not transform_threads()  # they start with the first sample
    assert next(samples) == 0
    assert len(transform_threads()) == 3
    kept: BaseException | None = None
    if how == "ended":
        gate.open.set()
        assert len(list(samples)) == COUNT - 1
    elif how == "error":
        try:
            list(samples)
        except ValueError as error:
            kept = error  # with its traceback, which must not keep the iterator
    del samples
    gate.open.set()
    wait_until(lambda: not transform_threads())
    assert (kept is None) == (how != "error")


def test_a_forked_child_has_its_own_threads(manifest: S3Manifest) -> None:
    gate = Gate(4)
    samples = iter(dataset_of(manifest, transform=gate, shuffle=False))
    assert [next(samples), next(samples)] == [0, 1]
    wait_until(lambda: {4, 5} <= set(gate.begun))  # one is under way, and one is made

    def in_child() -> bytes:
        gate.open.set()
        return bytes(samples)

    child = Child(in_child)
    assert child.result() == bytes(range(2, COUNT))
    gate.open.set()
    assert list(samples) == list(range(2, COUNT))


def test_the_budget_is_as_of_one_thread(manifest: S3Manifest) -> None:
    with pytest.raises(S3FormatError, match="3 samples of this epoch could not be made"):
        list(dataset_of(manifest, transform=of_some, on_error="replace", max_errors=2))


def test_stops_and_resumes_hand_out_each_sample_once(manifest: S3Manifest) -> None:
    seen: list[int] = []
    state = None
    for threads, workers, stop in ((3, 2, 4), (0, 0, 3), (2, 0, 99)):
        with loading(dataset_of(manifest, transform_threads=threads), num_workers=workers) as loader:
            if state is not None:
                loader.load_state_dict(state)
            seen += itertools.chain(*itertools.islice(loader, stop))
            state = loader.state_dict()
    assert sorted(seen) == list(range(COUNT))


@pytest.mark.parametrize("wrong", [-1, 1.5, True])
def test_other_numbers_are_refused(manifest: S3Manifest, wrong: Any) -> None:
    with pytest.raises(S3ConfigurationError, match="transform_threads must be a whole number"):
        dataset_of(manifest, transform_threads=wrong)


_PROGRAM = """
import sys, torch
from s3torchconnector import S3StreamingDataset
begun = []
def transform(reader):
    begun.append(reader.read())
    for _ in range(100):
        torch.rand(100, 100).sort()  # releases the interpreter lock, inside an extension
    return 1
samples = iter(S3StreamingDataset(sys.argv[1], region="us-east-1", endpoint=sys.argv[2], transform=transform,
                                  transform_threads=4, batch_size=40))
print(next(samples), flush=True)
"""


@pytest.mark.usefixtures("manifest")
def test_an_exit_in_the_middle_is_quiet(s3_server: S3Server, warm_python: WarmPython) -> None:
    run = warm_python.run("-c", _PROGRAM, "s3://threads/data/", s3_server.endpoint)
    assert (run.returncode, run.stdout, run.stderr) == (0, "1\n", "")


@pytest.mark.parametrize("threads", [0, 3])
def test_dropping_the_iterator_of_a_loader_ends_its_pass_at_once(manifest: S3Manifest, threads: int) -> None:
    wait_until(lambda: not transform_threads())
    gc.disable()
    try:
        loader = S3DataLoader(dataset_of(manifest, transform_threads=threads), collate_fn=list)
        batches = iter(loader)
        assert len(next(batches)) == 4
        samples = weakref.ref(batches._batches._dataset_fetcher.dataset_iter)  # type: ignore[attr-defined]
        assert len(transform_threads()) == threads
        del batches
        assert samples() is None
        wait_until(lambda: not transform_threads())
    finally:
        gc.enable()
