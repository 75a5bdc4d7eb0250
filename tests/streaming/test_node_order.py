"""Canonical nodes: each node gets the same samples in every epoch, in another order, and its cache has them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector import S3Cache, S3DataLoader, S3Manifest, S3StreamingDataset
from s3torchconnector._datasets._deal import Deal
from s3torchconnector._datasets._node_order import NodeOrder
from s3torchconnector._datasets._plan import Plan
from s3torchconnector.errors import S3ConfigurationError
from s3torchconnector.testing import S3Server
from tests.streaming.support import Options, number, numbered, options

SEEDS = st.integers(0, 2**64 - 1)
EPOCHS = st.integers(0, 10_000)
NODES = st.integers(1, 12)


@given(SEEDS, EPOCHS, st.integers(1, 400), NODES, st.booleans())
def test_samples_come_once_each_and_stay_on_their_node(
    seed: int, epoch: int, samples: int, nodes: int, shuffle: bool
) -> None:
    order = NodeOrder(seed, epoch, samples, nodes, shuffle=shuffle)
    found = [order.sample_at(position) for position in range(samples)]
    assert sorted(found) == list(range(samples))
    assert [sample % nodes for sample in found] == [position % nodes for position in range(samples)]
    assert order.samples_at(torch.arange(samples)).tolist() == found
    assert shuffle or found == list(range(samples))


def test_many_samples_agree_with_single_ones() -> None:
    order = NodeOrder(3, 1, 200_003, 4)  # more for each node than are sorted
    positions = torch.arange(150_000, 151_000)
    assert order.samples_at(positions).tolist() == [order.sample_at(int(position)) for position in positions]


def test_nodes_and_epochs_have_unrelated_orders() -> None:
    first, second = (NodeOrder(0, epoch, 4_000, 4) for epoch in (0, 1))
    turns = [[first.sample_at(4 * turn + node) // 4 for turn in range(1_000)] for node in range(4)]
    turns.append([second.sample_at(4 * turn) // 4 for turn in range(1_000)])
    for i, one in enumerate(turns):
        for other in turns[:i]:
            assert sum(a == b for a, b in zip(one, other, strict=True)) < 12  # one is expected


@st.composite
def clusters(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Nodes, ranks of each, canonical nodes, and a batch size that suits them."""
    nodes, ranks = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    canonical = nodes * draw(st.integers(1, 3))
    fewest = next(size for size in range(1, canonical + 1) if size * nodes * ranks % canonical == 0)
    return nodes, ranks, canonical, fewest * draw(st.integers(1, 2))


@settings(max_examples=60)
@given(clusters(), st.integers(0, 50), SEEDS)
def test_a_node_gets_the_same_samples_in_every_epoch(cluster: tuple[int, int, int, int], start: int, seed: int) -> None:
    nodes, ranks, canonical, batch_size = cluster
    owners = [range(canonical)[node * canonical // nodes : (node + 1) * canonical // nodes] for node in range(nodes)]
    for epoch in range(2):
        order = NodeOrder(seed, epoch, 331, canonical)
        deal = Deal(331, nodes * ranks, batch_size, "drop", start, canonical)
        for rank in range(nodes * ranks):
            samples = list(Plan(deal, rank, order).samples())
            assert len(samples) == deal.samples_of(rank)
            assert {sample % canonical for sample in samples} <= set(owners[rank // ranks])


def _epochs(
    manifest: S3Manifest, where: Options, nodes: int, caches: list[S3Cache], state: dict[str, Any] | None = None
) -> Iterator[tuple[list[int], list[int]]]:
    """For each epoch: what all nodes have read, and how many of each were hits. Each node has one rank."""
    loaders = []
    for node in range(nodes):
        dataset = S3StreamingDataset(
            manifest,
            transform=number,
            batch_size=4 // nodes,
            cache=caches[node],
            canonical_nodes=4,
            num_replicas=nodes,
            rank=node,
            **where,
        )
        loaders.append(S3DataLoader(dataset, collate_fn=list))
        if state:
            loaders[-1].load_state_dict(state)
    while True:
        seen, hits = [], []
        for loader in loaders:
            before = loader.stats()["cache_hits"]
            seen += [each for batch in loader for each in batch]
            hits.append(loader.stats()["cache_hits"] - before)
        yield seen, hits


def test_the_second_epoch_comes_from_the_caches(s3_server: S3Server, bucket: str, tmp_path: Path) -> None:
    where = options(s3_server)
    manifest = S3Manifest.from_prefix(numbered(s3_server, bucket, 24), **where)
    caches = [S3Cache(tmp_path / str(node), max_bytes=2**28) for node in range(2)]
    epochs = _epochs(manifest, where, 2, caches)
    (first, missed), (second, hits) = next(epochs), next(epochs)
    assert sorted(first) == sorted(second) == list(range(24))
    assert first != second
    assert (missed, hits) == ([0, 0], [12, 12])
    # One node has what two had: half of it on its own disk.
    seen, [found] = next(_epochs(manifest, where, 1, caches))
    assert sorted(seen) == list(range(24))
    assert found == 12


def test_a_state_goes_on_with_another_number_of_nodes(s3_server: S3Server, bucket: str) -> None:
    where: Options = {**options(s3_server), "transform": number, "canonical_nodes": 4}
    manifest = S3Manifest.from_prefix(numbered(s3_server, bucket, 22), **options(s3_server))
    loaders = [
        S3DataLoader(S3StreamingDataset(manifest, batch_size=2, num_replicas=2, rank=rank, **where), collate_fn=list)
        for rank in range(2)
    ]
    passes = [iter(loader) for loader in loaders]
    seen = [each for batches in passes for _ in range(2) for each in next(batches)]
    states = [loader.state_dict() for loader in loaders]
    assert states[0] == states[1]
    rest = S3DataLoader(S3StreamingDataset(manifest, batch_size=3, **where), collate_fn=list)
    rest.load_state_dict(states[0])
    assert sorted(seen + [each for batch in rest for each in batch]) == list(range(22))
    other = S3StreamingDataset(manifest, **{**where, "canonical_nodes": 2})
    with pytest.raises(S3ConfigurationError, match=r"on 4 nodes.*on 2 nodes.*canonical_nodes of the state"):
        other.load_state_dict(states[0])


def test_what_canonical_nodes_cannot_do_is_refused(s3_server: S3Server, bucket: str) -> None:
    manifest = S3Manifest.from_prefix(numbered(s3_server, bucket, 4), **options(s3_server))
    for wrong in (0, -1, 2.0, True):
        with pytest.raises(S3ConfigurationError, match="canonical_nodes must be a whole number"):
            S3StreamingDataset(manifest, canonical_nodes=wrong)  # type: ignore[arg-type]
    with pytest.raises(S3ConfigurationError, match="leave one out"):
        S3StreamingDataset(manifest, canonical_nodes=2, balance="bytes")
    with pytest.raises(S3ConfigurationError, match="leave canonical_nodes out of images"):
        S3StreamingDataset.mix({"images": (S3StreamingDataset(manifest, canonical_nodes=2), 1)})


def test_batches_that_move_samples_between_nodes_warn_once(
    s3_server: S3Server, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = S3Manifest.from_prefix(numbered(s3_server, bucket, 6), **options(s3_server))
    dataset = S3StreamingDataset(manifest, transform=number, batch_size=3, canonical_nodes=2)
    with caplog.at_level(logging.WARNING):
        assert [sorted(dataset) for _ in range(2)] == [list(range(6))] * 2
    told = [record.message for record in caplog.records if record.name.endswith("._passes")]
    assert [message.partition(":")[0] for message in told] == [
        "batch_size times ranks is 3, no multiple of canonical_nodes=2"
    ]
