"""A child counts its own from zero, and its parent adds up what all have done, however they end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

import pytest
import torch.distributed
from torch.utils.data import DataLoader

from s3torchconnector import S3Client, S3DataLoader, S3IterableDataset, S3MapDataset, S3StreamingDataset, metrics
from s3torchconnector._wire import _counts
from s3torchconnector.metrics import Metrics
from s3torchconnector.testing import S3Server
from tests.streaming.support import numbered, read

REGION = "us-east-1"
COUNT = 24


def in_forked_child(work: Callable[[], None]) -> None:
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:
            os._exit(1)
        os.kill(os.getpid(), signal.SIGKILL)  # however it ends
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def test_a_forked_child_begins_at_zero_and_adds_up_in_its_parent(s3_server: S3Server, bucket: str) -> None:
    numbered(s3_server, bucket, COUNT)
    before, own_before = metrics.process(), metrics.process(children=False)
    with S3Client(REGION) as client:
        client.head_object(bucket, "data/0000")

        def child() -> None:
            assert metrics.process().requests == client.metrics().requests == {}
            for number in range(3):
                client.get_object(bucket, f"data/{number:04}").read()
            assert metrics.process().requests == client.metrics().requests == {"GetObject": {200: 3}}
            in_forked_child(grandchild)
            assert metrics.process().requests == {"GetObject": {200: 3}, "DeleteObject": {204: 1}}

        def grandchild() -> None:
            client.delete_object(bucket, "data/0023")
            assert metrics.process().requests == {"DeleteObject": {204: 1}}

        in_forked_child(child)
        assert client.metrics().requests == {"HeadObject": {200: 1}}
    since = metrics.process() - before
    # What the child's own child has done, only the child knows.
    assert since.requests == {"HeadObject": {200: 1}, "GetObject": {200: 3}}
    assert since.received_bytes == 3
    assert since.first_byte["GetObject"].count == 3
    assert (metrics.process(children=False) - own_before).requests == {"HeadObject": {200: 1}}
    for _ in range(40):  # enough that those which have ended are folded
        in_forked_child(lambda: None)
    assert len(_counts.counts._children) < 40
    assert (metrics.process() - before).requests == since.requests


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_the_workers_of_any_dataset_add_up(s3_server: S3Server, bucket: str, method: str) -> None:
    prefix = numbered(s3_server, bucket, COUNT)
    kinds: list[Any] = [S3MapDataset, S3IterableDataset] if method == "fork" else [S3MapDataset]
    for kind in kinds:
        dataset = kind.from_prefix(prefix, region=REGION, transform=read)
        before, own_before = metrics.process(), metrics.process(children=False)
        list(DataLoader(dataset, num_workers=2, batch_size=None, multiprocessing_context=method))
        assert "GetObject" not in (metrics.process(children=False) - own_before).requests
        gets = COUNT if kind is S3MapDataset else 2 * COUNT  # without sharding, each worker reads all
        since = metrics.process() - before
        assert since.requests["GetObject"] == {200: gets}
        assert since.first_byte["GetObject"].count == gets


def test_a_loader_and_the_process_count_the_same(s3_server: S3Server, bucket: str) -> None:
    prefix = numbered(s3_server, bucket, COUNT)
    dataset = S3StreamingDataset(prefix, region=REGION, transform=read, batch_size=4)
    before = metrics.process()
    loader = S3DataLoader(dataset, num_workers=2)
    list(loader)
    since = metrics.process() - before
    assert since.requests["GetObject"] == {200: COUNT}
    assert loader.stats()["requests"] == COUNT


def rank(number: int, store: str, bucket: str, results: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=number, world_size=2)
    with S3Client(REGION) as client:
        for _ in range(number + 1):
            client.head_object(bucket, "data/0000")
    results.put(metrics.all_ranks())


def test_all_ranks_get_the_sum(s3_server: S3Server, bucket: str, tmp_path: Any) -> None:
    numbered(s3_server, bucket, 1)
    context = get_context("forkserver")
    results = context.SimpleQueue()
    ranks = [context.Process(target=rank, args=(number, str(tmp_path / "store"), bucket, results)) for number in (0, 1)]
    try:
        for each in ranks:
            each.start()
        found: list[Metrics] = [results.get() for _ in ranks]
        for each in ranks:
            each.join()
    finally:
        for each in ranks:
            each.kill()  # one that waits for another one that failed
    assert [each.requests for each in found] == [{"HeadObject": {200: 3}}] * 2
    assert metrics.all_ranks().requests == metrics.process().requests  # there is no process group here


def test_more_codes_than_places_are_left_out() -> None:
    row = _counts.Row.mapped()
    counts = _counts.ProcessCounts()
    counts._begin(row)
    values = counts.new_values(counts)
    for code in range(1, 2 * _counts.CAPACITY):
        values[counts.place(code)] += code
    totals: dict[int, int] = {}
    row.add_to(totals)
    assert totals == counts.own() == {code: code for code in range(1, _counts.CAPACITY - 1)}
