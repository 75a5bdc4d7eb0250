"""The same work by either connector, through the public API that both share.

The client is created and has read one small object before the clock starts. So the start-up, which has its own row, is
not counted again in every other row. Start-up starts the clock before the connector is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks.job import Job
from benchmarks.meter import Meter

Work = Callable[[Job, Meter], int]
_CHUNK = 1 << 20
BATCH = 64
WORKERS = 4


def workloads(ranged: bool) -> dict[str, Work]:
    """The functions by name; `ranged` chooses the ranged reader where an object is read."""
    return {
        "iterable": iterable,
        "map": map_style,
        "readinto": partial(readinto, ranged=ranged),
        "load": partial(load, ranged=ranged),
        "save": save,
        "stream": partial(stream, ranged=ranged),
        "listing": listing,
        "startup": startup,
    }


def iterable(job: Job, meter: Meter) -> int:
    """Every object of an iterable dataset, read whole, in this process. Returns their number."""
    from s3torchconnector import S3IterableDataset

    def dataset(count: int) -> S3IterableDataset:
        uris = [job.uri(job.small(number)) for number in range(count)]
        return S3IterableDataset.from_objects(uris, transform=read, **options(job))

    expect(sum(map(len, dataset(1))), job.small_size)
    measured, received = dataset(job.objects), 0
    with meter:
        for data in measured:
            received += len(data)
    expect(received, job.objects * job.small_size)
    return job.objects


def map_style(job: Job, meter: Meter) -> int:
    """An epoch of a map dataset through DataLoader's workers. Returns the number of objects.

    The workers start and read one batch each before the clock does; then a whole epoch is measured, from
    asking for its first batch to having its last. Objects are read in the workers; only their lengths
    travel, so that this measures the connector and not the queue between processes.
    """
    from torch.utils.data import DataLoader

    from s3torchconnector import S3MapDataset

    uris = [job.uri(job.small(number)) for number in range(job.objects)]
    dataset = S3MapDataset.from_objects(uris, transform=read, **options(job))
    sampler = _Sampler(min(BATCH * WORKERS, job.objects))
    loader = DataLoader(
        dataset,
        batch_size=BATCH,
        num_workers=WORKERS,
        sampler=sampler,
        collate_fn=lengths,
        persistent_workers=True,
    )
    for _ in loader:
        pass
    sampler.count = job.objects
    with meter:
        received = sum(map(sum, loader))
    expect(received, job.objects * job.small_size)
    return job.objects


def readinto(job: Job, meter: Meter, ranged: bool) -> int:
    """One large object into memory that exists already. Returns its bytes."""
    from benchmarks.limit import ready_memory

    get, memory, done = _warm(job, ranged), ready_memory(job.size), 0
    with meter:
        reader = get(job.big)
        while received := reader.readinto(memory[done:]):
            done += received
    expect(done, job.size)
    return done


def load(job: Job, meter: Meter, ranged: bool) -> int:
    """`torch.load` of a checkpoint. Returns its bytes."""
    import torch

    get = _warm(job, ranged)
    with meter:
        state = torch.load(get(job.big), map_location="cpu", weights_only=True)
    expect(state["layer3.weight"][-1].item(), 3.0)
    return job.size


def save(job: Job, meter: Meter) -> int:
    """`torch.save` of a checkpoint. Returns its bytes."""
    import torch

    from benchmarks.objects import tensors
    from s3torchconnector import S3Checkpoint

    checkpoint, state = S3Checkpoint(**options(job)), tensors(job.size)
    with checkpoint.writer(job.uri(job.saved)) as writer:
        writer.write(b"warm")
    with meter, checkpoint.writer(job.uri(job.saved)) as writer:
        torch.save(state, writer)
    return job.size


def stream(job: Job, meter: Meter, ranged: bool) -> int:
    """One large object in reads of 1 MiB. Returns its bytes."""
    get, done = _warm(job, ranged), 0
    with meter:
        reader = get(job.big)
        while data := reader.read(_CHUNK):
            done += len(data)
    expect(done, job.size)
    return done


def listing(job: Job, meter: Meter) -> int:
    """The keys below a prefix, by the length of a map dataset. Returns their number."""
    from s3torchconnector import S3MapDataset

    dataset = S3MapDataset.from_prefix(job.uri(job.tree), **options(job))
    with meter:
        count = len(dataset)
    expect(count, job.objects)
    return count


def startup(job: Job, meter: Meter) -> int:
    """From PyTorch imported to the first object's bytes: import, credentials, connection, request."""
    import torch  # noqa: F401

    with meter:
        from s3torchconnector import S3Checkpoint

        data = S3Checkpoint(**options(job)).reader(job.uri(job.small(1))).read()
    expect(len(data), job.small_size)
    return 1


def options(job: Job) -> dict[str, Any]:
    """What every class of either connector is made with."""
    from s3torchconnector import S3ClientConfig

    config = S3ClientConfig(force_path_style=job.path_style)
    return {"region": job.region, "endpoint": job.endpoint, "s3client_config": config}


def _warm(job: Job, ranged: bool) -> Callable[[str], Any]:
    """Opens readers by key, on a client that has read one object."""
    from s3torchconnector._s3client import S3Client
    from s3torchconnector.s3reader import S3ReaderConstructor

    client = S3Client(**options(job))
    constructor = S3ReaderConstructor.range_based() if ranged else None
    get = partial(client.get_object, job.bucket, reader_constructor=constructor)
    expect(len(get(job.small(0)).read()), job.small_size)
    return get


def read(reader: Any) -> bytes:
    return reader.read()


def lengths(batch: list[bytes]) -> list[int]:
    return [len(data) for data in batch]


def expect(found: float, expected: float) -> None:
    if found != expected:
        raise AssertionError(f"expected {expected}, got {found}")


class _Sampler:
    """The numbers below `count`, which may change between epochs."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))
