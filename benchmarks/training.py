"""Datasets as training uses them: shuffled, through workers, and at their very first objects.

Ours is `S3StreamingDataset` with `S3DataLoader`. The native connector has no such class: there it is its map dataset
with PyTorch's `DistributedSampler`, as its users shuffle. The "limit" of these rows is our own older dataset.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import chain
from typing import Any

from benchmarks.connector import BATCH, WORKERS, Work, expect, lengths, options, read
from benchmarks.job import Job
from benchmarks.meter import Meter
from benchmarks.objects import mark


def workloads(ours: bool) -> dict[str, Work]:
    """The functions by name."""
    return {
        "shuffled": shuffled,
        "shuffled-workers": partial(shuffled_workers, ours=ours),
        "shuffled-raw": shuffled_raw,
        "first-objects": first_objects,
        "first-batches": partial(first_batches, ours=ours),
    }


def shuffled(job: Job, meter: Meter) -> int:
    """Every object in an exact shuffle, read whole, in this process. Returns their number."""
    measured, received = _streaming(job), 0
    expect(len(next(iter(_streaming(job, 1)))), job.small_size)
    with meter:
        for data in measured:
            received += len(data)
    expect(received, job.objects * job.small_size)
    return job.objects


def shuffled_workers(job: Job, meter: Meter, ours: bool) -> int:
    """The second epoch through persistent workers: from asking for its first batch to having its last."""
    loader = _loader(job, ours, persistent_workers=True)
    expect(sum(map(sum, loader)), job.objects * job.small_size)
    with meter:
        received = sum(map(sum, loader))
    expect(received, job.objects * job.small_size)
    return job.objects


def shuffled_raw(job: Job, meter: Meter) -> int:
    """The same by ours, beside litdata: which objects came is compared, too."""
    from s3torchconnector import S3DataLoader

    loader = S3DataLoader(_streaming(job), num_workers=WORKERS, persistent_workers=True, collate_fn=marks)
    return second_epoch(job, meter, loader)


def second_epoch(job: Job, meter: Meter, loader: Iterable[list[tuple[int, int]]]) -> int:
    """The second epoch of a loader of `marks`: from asking for its first batch to having its last.

    Both epochs have to consist of every object, once, and in two orders. Returns the number of objects.
    """
    first = list(chain.from_iterable(loader))
    with meter:
        second = list(chain.from_iterable(loader))
    expected = [(job.small_size, 0 if job.signed else mark(number)) for number in range(job.objects)]
    for epoch in (first, second):
        if sorted(epoch) != sorted(expected):
            raise AssertionError(f"{len(epoch)} of {job.objects} objects, or others, or not each of them once")
    if not job.signed and (first == second or expected in (first, second)):
        raise AssertionError("the objects came in order, or twice in the same")
    return job.objects


def marks(batch: list[bytes]) -> list[tuple[int, int]]:
    """Length and first byte of each object, which is all that travels."""
    return [(len(data), data[0]) for data in batch]


def first_objects(job: Job, meter: Meter) -> int:
    """Objects of an iterable dataset by a client that has sent nothing yet. Returns their number."""
    from s3torchconnector import S3IterableDataset

    uris, received = [job.uri(job.small(number)) for number in range(job.objects)], 0
    dataset = S3IterableDataset.from_objects(uris, transform=read, **options(job))
    with meter:
        for data in dataset:
            received += len(data)
    expect(received, job.objects * job.small_size)
    return job.objects


def first_batches(job: Job, meter: Meter, ours: bool) -> int:
    """An epoch through workers that begin with it: from before they are started to the last batch."""
    loader = _loader(job, ours)
    with meter:
        received = sum(map(sum, loader))
    expect(received, job.objects * job.small_size)
    return job.objects


def _streaming(job: Job, count: int | None = None) -> Any:
    from s3torchconnector import S3Manifest, S3StreamingDataset

    uris = [job.uri(job.small(number)) for number in range(job.objects if count is None else count)]
    manifest = S3Manifest.from_objects(uris, **options(job))
    return S3StreamingDataset(manifest, transform=read, batch_size=BATCH, seed=1)


def _loader(job: Job, ours: bool, **more: Any) -> Iterable[list[int]]:
    """Objects are read in the workers, and only their lengths travel."""
    from torch.utils.data import DataLoader, DistributedSampler

    more.update(num_workers=WORKERS, collate_fn=lengths)
    if ours:
        from s3torchconnector import S3DataLoader

        return S3DataLoader(_streaming(job), **more)
    from s3torchconnector import S3MapDataset

    uris = [job.uri(job.small(number)) for number in range(job.objects)]
    dataset = S3MapDataset.from_objects(uris, transform=read, **options(job))
    sampler: DistributedSampler[Any] = DistributedSampler(dataset, num_replicas=1, rank=0, seed=1)
    return DataLoader(dataset, BATCH, sampler=sampler, **more)
