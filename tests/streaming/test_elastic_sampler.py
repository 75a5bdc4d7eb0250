"""``ElasticDistributedSampler``: the order of the streaming dataset, for datasets with an index."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from s3torchconnector import ElasticDistributedSampler, S3Manifest, S3MapDataset, S3StreamingDataset
from s3torchconnector.errors import S3ConfigurationError
from s3torchconnector.testing import S3Server
from tests.streaming.support import number, numbered, options

COUNT = 71


def sampler_of(**changes: Any) -> ElasticDistributedSampler:
    return ElasticDistributedSampler(range(COUNT), **{"batch_size": 4, **changes})


def flat(batches: Any) -> list[int]:
    return [int(sample) for batch in batches for sample in batch]


def test_each_pass_is_another_epoch_and_each_index_comes_once() -> None:
    sampler = sampler_of()
    passes = [list(sampler) for _ in range(3)]
    assert sampler.epoch == 2
    assert all(sorted(each) == list(range(COUNT)) for each in passes)
    assert len(set(map(tuple, passes))) == 3
    sampler.set_epoch(1)
    assert list(sampler) == passes[1]
    assert list(sampler_of(shuffle=False)) == list(range(COUNT))


def test_its_order_equals_that_of_the_streaming_dataset(s3_server: S3Server, bucket: str) -> None:
    manifest = S3Manifest.from_prefix(numbered(s3_server, bucket, COUNT), **options(s3_server))
    streamed = S3StreamingDataset(manifest, transform=number, batch_size=4, seed=3)
    mapped = S3MapDataset.from_manifest(manifest, transform=number)
    sampler = ElasticDistributedSampler(mapped, batch_size=4, seed=3)
    loader: DataLoader[Any] = DataLoader(mapped, batch_size=4, sampler=sampler)
    assert len(loader) == 18
    seen = flat(itertools.islice(loader, 5))
    state = sampler.state_dict(batches=5)
    assert state == streamed.state_dict(batches=5)
    streamed.load_state_dict(state)
    assert sorted(seen + list(streamed)) == list(range(COUNT))


@pytest.mark.parametrize("then", [1, 2, 5])
def test_a_state_resumes_on_other_ranks(then: int) -> None:
    samplers = [sampler_of(num_replicas=3, rank=rank, even_batches=False) for rank in range(3)]
    seen = [index for sampler in samplers for index in itertools.islice(sampler, 8)]
    states = [sampler.state_dict() for sampler in samplers]
    assert states[0] == states[1] == states[2]
    others = [sampler_of(num_replicas=then, rank=rank, batch_size=3, even_batches=False) for rank in range(then)]
    for sampler in others:
        sampler.load_state_dict(states[0])
    assert sorted(seen + [index for sampler in others for index in sampler]) == list(range(COUNT))
    with pytest.raises(S3ConfigurationError, match="seed"):
        sampler_of(seed=1).load_state_dict(states[0])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [0, 7, 18])
def test_a_stateful_loader_goes_on_exactly(workers: int, taken: int) -> None:
    expected = [list(sampler) for sampler in [sampler_of()] for _ in range(2)]

    def loader() -> Any:
        data = list(range(COUNT))
        return StatefulDataLoader(data, batch_size=4, num_workers=workers, sampler=sampler_of())

    first = loader()
    seen = flat(itertools.islice(first, taken))
    other = loader()
    other.load_state_dict(first.state_dict())
    if taken < 18:
        assert seen + flat(other) == expected[0]
    assert flat(other) == expected[1]
