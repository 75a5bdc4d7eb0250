"""Large objects on the real server, here and in workers: within the budget, in order, cancelled after the loop."""

from __future__ import annotations

import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from torch.utils.data import DataLoader, Dataset, IterableDataset

from s3torchconnector import S3ClientConfig, S3IterableDataset, S3MapDataset, S3Reader
from s3torchconnector._transfer.engine._budget import ByteBudget
from s3torchconnector.testing import S3Server
from tests.datasets.support import MIB, TIMEOUT, runtime_of, wait_until_budget_is_free
from tests.reading.support import PART, content
from tests.servers.http_messages import ReceivedRequest
from tests.servers.proxy import RecordingProxy, StallBody

COUNT, PARTS = 4, 12
SIZE = PARTS * PART
BUDGET = 16 * MIB
CONFIG = S3ClientConfig(part_size=PART, memory_budget=BUDGET)
# In addition to the budget: the part that is being read, the piece that the program has, what the allocator keeps.
MOST_GROWTH = BUDGET + PART + 12 * MIB

each_start = pytest.mark.parametrize("method", [None, "fork", "forkserver"])


class Streamed(NamedTuple):
    """What a worker reports about an object that it has read to the end."""

    key: str
    checksum: int
    most_taken: int  # bytes of the budget
    growth: int  # of the process's memory, at its peak


def stream(reader: S3Reader, budget: ByteBudget) -> Streamed:
    """Read an object in small pieces. The first one also imports what is imported at first use."""
    piece = reader.read(MIB)
    checksum, most_taken = zlib.crc32(piece), budget.taken
    before = forget_peak()
    while piece := reader.read(MIB):
        checksum = zlib.crc32(piece, checksum)
        most_taken = max(most_taken, budget.taken)
    return Streamed(reader.key, checksum, most_taken, peak() - before)


def forget_peak() -> int:
    """Have the kernel measure the peak of this process's memory from here on; returns the memory it has now."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return peak()


def peak() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


class Streaming(IterableDataset[Streamed]):
    def __init__(self, readers: S3IterableDataset) -> None:
        self.readers = readers

    def __iter__(self) -> Iterator[Streamed]:
        budget = runtime_of(self.readers).budget
        for reader in self.readers:
            yield stream(reader, budget)
            reader.close()
        wait_until_budget_is_free(self.readers)


class StreamingByIndex(Dataset[Streamed]):
    def __init__(self, readers: S3MapDataset) -> None:
        self.readers = readers

    def __len__(self) -> int:
        return len(self.readers)

    def __getitem__(self, i: int) -> Streamed:
        return stream(self.readers[i], runtime_of(self.readers).budget)


class LeftEarly(IterableDataset[Any]):
    """Leaves the loop over all objects at the first one, reports what remains, then iterates over all of them."""

    def __init__(self, readers: S3IterableDataset) -> None:
        self.readers = readers

    def __iter__(self) -> Iterator[Any]:
        for reader in self.readers:
            first = reader.read(MIB)
            break
        reader.close()
        runtime = runtime_of(self.readers)
        wait_until_budget_is_free(self.readers)
        self.readers._source.client.close()  # waits for all threads, so none is inside a request
        yield [zlib.crc32(first), runtime.budget.taken]
        yield [reader.key for reader in self.readers]


@pytest.fixture
def uri(s3_server: S3Server, bucket: str) -> str:
    for number in range(COUNT):
        with (s3_server.folder / bucket / str(number)).open("wb") as file:
            file.writelines(content(number + start, number + start + PART) for start in range(0, SIZE, PART))
    return f"s3://{bucket}"


def checksum_of(number: int) -> int:
    checksum = 0
    for start in range(0, SIZE, PART):
        checksum = zlib.crc32(content(number + start, number + start + PART), checksum)
    return checksum


def loader_of(dataset: Any, method: str | None, workers: int = 1) -> DataLoader[Any]:
    """A loader that returns samples as they are; without a method, from this process."""
    options: dict[str, Any] = {"num_workers": workers, "multiprocessing_context": method, "timeout": 60}
    return DataLoader(dataset, batch_size=None, **(options if method else {}))


def parts_asked_for(proxy: RecordingProxy) -> Counter[str]:
    return Counter(f"{get.path.rpartition('/')[2]} {get.range}" for get in proxy.of("GET") if get.range)


@each_start
@pytest.mark.parametrize("kind", ["iterable", "map"])
def test_objects_larger_than_the_budget_stream_in_order(
    uri: str, proxy: RecordingProxy, kind: str, method: str | None
) -> None:
    options: dict[str, Any] = {"region": "us-east-1", "endpoint": proxy.endpoint, "s3client_config": CONFIG}
    dataset: Any
    if kind == "iterable":
        dataset = Streaming(S3IterableDataset.from_prefix(uri, enable_sharding=True, **options))
    else:
        dataset = StreamingByIndex(S3MapDataset.from_prefix(uri, **options))
    samples = list(loader_of(dataset, method, workers=2 if method == "fork" else 1))
    assert [(each.key, each.checksum) for each in samples] == [(str(i), checksum_of(i)) for i in range(COUNT)]
    for each in samples:
        assert BUDGET // 2 < each.most_taken <= BUDGET + PART  # it is used, too
        assert each.growth <= MOST_GROWTH < SIZE
    asked = parts_asked_for(proxy)
    assert max(asked.values()) == 1
    # A first response that tells the size, pieces of parts at the end, and blocks for which there was no memory: a read
    # that waits for them fetches them by itself.
    assert len(asked) <= COUNT * (PARTS + 8)
    assert sum(get.body_bytes for get in proxy.of("GET") if get.range) == COUNT * SIZE


@each_start
def test_leaving_the_loop_cancels_requests_for_large_objects(
    uri: str, proxy: RecordingProxy, method: str | None
) -> None:
    """All objects but the first stall in the middle: only cancelling can free memory and threads."""
    release = threading.Event()
    stalled = threading.Event()

    def stall_all_but_the_first(request: ReceivedRequest) -> StallBody | None:
        if release.is_set() or request.range is None:
            return None
        if request.path.endswith("/0"):
            stalled.wait(TIMEOUT)  # so that there is something to cancel
            return None
        stalled.set()
        return StallBody(release, after=MIB)

    proxy.misbehave = stall_all_but_the_first
    readers = S3IterableDataset.from_prefix(
        uri, region="us-east-1", endpoint=proxy.endpoint, s3client_config=CONFIG, look_ahead=2
    )
    samples = iter(loader_of(LeftEarly(readers), method))
    assert next(samples) == [zlib.crc32(content(0, MIB)), 0]
    assert stalled.is_set()
    release.set()
    assert next(samples) == [str(i) for i in range(COUNT)]  # the dataset still works
    assert list(samples) == []
