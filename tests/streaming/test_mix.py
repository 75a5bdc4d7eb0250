"""``S3StreamingDataset.mix``: exact shares, each source whole again and again, and one position as the state."""

from __future__ import annotations

import contextlib
import itertools
import json
import pickle
import random
from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector import S3Reader
from s3torchconnector._datasets._mixture import BLOCK, MixedOrder, Source, quotas
from s3torchconnector._datasets._order import Order
from s3torchconnector.errors import S3ConfigurationError, S3FormatError
from s3torchconnector.s3dataloader import S3DataLoader
from s3torchconnector.s3manifest import S3Manifest
from s3torchconnector.s3streaming_dataset import S3StreamingDataset
from s3torchconnector.testing import S3Server
from tests.servers.proxy import RecordingProxy
from tests.shards.support import tar
from tests.streaming.support import fill, loading, number, options

WEIGHTS = st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 1e9), st.integers(1, 50)), min_size=1, max_size=12)


# -- pure -------------------------------------------------------------------------------------------------------------


@given(WEIGHTS.filter(any))
def test_quotas_are_the_rounded_weights_and_no_source_starves(weights: list[float]) -> None:
    found = quotas(weights)
    assert sum(found) == BLOCK
    assert [share > 0 for share in found] == [weight > 0 for weight in weights]
    shares = [Fraction(weight) * BLOCK / sum(map(Fraction, weights)) for weight in weights]
    raised = [share for share in shares if 0 < share < 1]
    for share, got in zip(shares, found, strict=True):
        # Without sources that would starve, each has its share rounded up or down.
        assert share - 1 - len(raised) < got < share + 1


def test_quotas_of_weights_that_divide_are_exact() -> None:
    assert quotas([0.7, 0.3]) == [700, 300]
    assert quotas([1, 1, 1]) == [334, 333, 333]
    assert quotas([1e9, 1, 0]) == [999, 1, 0]
    assert quotas([1] * 1000) == [1] * 1000
    for wrong in ([], [0, 0], [-1, 2], [float("nan")], [float("inf")], [1] * 1001):
        with pytest.raises(ValueError, match="weight"):
            quotas(wrong)


@st.composite
def mixes(draw: st.DrawFn) -> tuple[list[Source], int, int]:
    weights = draw(st.lists(st.integers(0, 20), min_size=1, max_size=5).filter(any))
    sizes = draw(st.lists(st.integers(1, 700), min_size=len(weights), max_size=len(weights)))
    shuffled = draw(st.lists(st.booleans(), min_size=len(weights), max_size=len(weights)))
    sources = [
        Source(size, share, 100 + i, shuffle)
        for i, (size, share, shuffle) in enumerate(zip(sizes, quotas(weights), shuffled, strict=True))
    ]
    return sources, draw(st.integers(0, 2**64 - 1)), draw(st.integers(1, 3500))


def sequence(sources: list[Source], seed: int, samples: int, epochs: int) -> list[tuple[int, int]]:
    """The samples of some epochs of a mix, as (source, number)."""
    ends = list(itertools.accumulate(source.samples for source in sources))
    found = []
    for epoch in range(epochs):
        for each in MixedOrder(sources, seed, epoch, samples).samples_at(torch.arange(samples)).tolist():
            source = next(i for i, end in enumerate(ends) if each < end)
            found.append((source, each - (ends[source - 1] if source else 0)))
    return found


@settings(deadline=None, max_examples=30)
@given(mixes())
def test_each_block_has_its_quotas_and_each_source_its_epochs(mix: tuple[list[Source], int, int]) -> None:
    """Blocks and sources' epochs go on from epoch to epoch of the mix."""
    sources, seed, samples = mix
    found = sequence(sources, seed, samples, 2)
    for start in range(0, len(found) - BLOCK + 1, BLOCK):
        counts = Counter(source for source, _ in found[start : start + BLOCK])
        assert [counts[i] for i in range(len(sources))] == [source.quota for source in sources]
    for i, source in enumerate(sources):
        numbers = [each for of, each in found if of == i]
        for epoch, start in enumerate(range(0, len(numbers), source.samples)):
            order = Order(source.seed, epoch, source.samples, shuffle=source.shuffle)
            seen = numbers[start : start + source.samples]
            assert seen == order.samples_at(torch.arange(len(seen))).tolist()


@settings(deadline=None, max_examples=30)
@given(mixes(), st.data())
def test_a_position_alone_says_which_sample(mix: tuple[list[Source], int, int], data: st.DataObject) -> None:
    sources, seed, samples = mix
    epoch = data.draw(st.integers(0, 2**27))
    positions = data.draw(st.lists(st.integers(0, samples - 1), min_size=1, max_size=20))
    together = MixedOrder(sources, seed, epoch, samples).samples_at(torch.tensor(positions)).tolist()
    assert together == [MixedOrder(sources, seed, epoch, samples).sample_at(position) for position in positions]
    with pytest.raises(IndexError):
        MixedOrder(sources, seed, epoch, samples).sample_at(samples)


def test_sources_are_interleaved_at_random() -> None:
    sources = [Source(10**9, 500, 1, True), Source(10**9, 500, 2, True)]
    found = [source for source, _ in sequence(sources, 5, 20_000, 1)]
    changes = sum(one != other for one, other in itertools.pairwise(found))
    assert 9_700 < changes < 10_300
    assert found != [source for source, _ in sequence(sources, 6, 20_000, 1)]
    assert found[:BLOCK] != found[BLOCK : 2 * BLOCK]


# -- on a server ------------------------------------------------------------------------------------------------------

SIZES = {"a": 61, "b": 23, "c": 5}
WEIGHTS_OF = {"a": 0.5, "b": 0.3, "c": 0.2}
EPOCH = 157


@pytest.fixture(scope="module")
def manifests(s3_server: S3Server) -> dict[str, S3Manifest]:
    """Objects that hold their numbers."""
    s3_server.make_bucket("mix")
    for name, count in SIZES.items():
        fill(s3_server, "mix", {f"{name}/{i:04}": f"{i}".encode() for i in range(count)})
    return {name: S3Manifest.from_prefix(f"s3://mix/{name}/", **options(s3_server)) for name in SIZES}


def named(reader: S3Reader) -> str:
    return f"{reader.key[0]}{number(reader)}"


def doubled(reader: S3Reader) -> str:
    return f"b{2 * number(reader)}"


def bad(reader: S3Reader) -> str:
    value = number(reader)
    if value % 2:
        raise ValueError("bad")
    return f"c{value}"


def mix_of(
    manifests: dict[str, S3Manifest],
    weights: dict[str, float] | None = None,
    of: dict[str, Any] | None = None,
    **changes: Any,
) -> S3StreamingDataset:
    """A mix of the sources, with the given options ``of`` some of them."""
    sources = {
        name: (S3StreamingDataset(manifests[name], **{"transform": named, **(of or {}).get(name, {})}), weight)
        for name, weight in (weights or WEIGHTS_OF).items()
    }
    return S3StreamingDataset.mix(sources, **{"batch_size": 4, "samples_per_epoch": EPOCH, "seed": 7, **changes})


def ranks_of(manifests: dict[str, S3Manifest], replicas: int, **changes: Any) -> list[S3StreamingDataset]:
    defaults = {"even_batches": False, **changes}
    return [mix_of(manifests, num_replicas=replicas, rank=rank, **defaults) for rank in range(replicas)]


def steps(loaders: list[S3DataLoader], stop: int | None = None) -> list[str]:
    taken = itertools.zip_longest(*(itertools.islice(loader, stop) for loader in loaders), fillvalue=[])
    return [sample for step in taken for batch in step for sample in batch]


def test_sources_are_seen_whole_over_the_epochs_of_a_mix(manifests: dict[str, S3Manifest]) -> None:
    dataset = mix_of(manifests)
    seen = [sample for _ in range(4) for sample in dataset]
    assert dataset.epoch == 3
    assert len(seen) == 4 * EPOCH
    for name, count in SIZES.items():
        numbers = [int(sample[1:]) for sample in seen if sample[0] == name]
        epochs = [numbers[i : i + count] for i in range(0, len(numbers) - count + 1, count)]
        assert len(epochs) >= 4
        assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
        assert epochs[0] != epochs[1]


def test_the_order_depends_on_no_topology(manifests: dict[str, S3Manifest]) -> None:
    order = list(mix_of(manifests))
    for replicas, batch_size, workers in ((1, 7, 0), (3, 2, 0), (2, 5, 2)):
        with contextlib.ExitStack() as stack:
            datasets = ranks_of(manifests, replicas, batch_size=batch_size)
            loaders = [stack.enter_context(loading(each, num_workers=workers)) for each in datasets]
            assert steps(loaders) == order
    assert list(pickle.loads(pickle.dumps(mix_of(manifests)))) == order


@pytest.mark.parametrize("seed", range(3))
def test_any_stops_and_resumes_hand_out_the_same_samples(manifests: dict[str, S3Manifest], seed: int) -> None:
    chance = random.Random(seed)
    expected = [sample for dataset in [mix_of(manifests)] for _ in range(2) for sample in dataset]
    seen: list[str] = []
    state: dict[str, Any] | None = None
    while state is None or state["epoch"] < 1 or state["position"] < EPOCH:
        replicas, batch_size = chance.choice([1, 2, 3]), chance.choice([1, 3, 7])
        loaders = [S3DataLoader(each, collate_fn=list) for each in ranks_of(manifests, replicas, batch_size=batch_size)]
        for loader in loaders if state is not None else []:
            assert state is not None
            loader.load_state_dict(state)
        seen += steps(loaders, chance.randrange(25))
        state = json.loads(json.dumps(loaders[0].state_dict()))
    assert seen == expected


@pytest.mark.parametrize("tail", [{}, {"drop_last": True}])
def test_all_ranks_get_equal_batches(manifests: dict[str, S3Manifest], tail: dict[str, bool]) -> None:
    for balance in (None, "bytes"):
        datasets = ranks_of(manifests, 3, even_batches=True, balance=balance, **tail)
        batches = [[len(batch) for batch in S3DataLoader(dataset, collate_fn=list)] for dataset in datasets]
        assert batches[0] == batches[1] == batches[2]
        assert [sum(each) for each in batches] == [len(dataset) for dataset in datasets]


def test_balance_keeps_the_samples_of_each_step(manifests: dict[str, S3Manifest]) -> None:
    plain, balanced = (ranks_of(manifests, 2, balance=balance)[0] for balance in (None, "bytes"))
    for step in range(EPOCH // 8):
        assert Counter(balanced.keys_of(step)) == Counter(plain.keys_of(step))
    assert balanced.keys_of(3) != plain.keys_of(3)


def test_keys_of_a_step_are_those_that_were_handed_out(manifests: dict[str, S3Manifest], proxy: RecordingProxy) -> None:
    datasets = ranks_of(manifests, 2)
    handed = steps([S3DataLoader(dataset, collate_fn=list) for dataset in datasets])
    keys = [key for step in range(20) for key in datasets[0].keys_of(step)]
    assert [f"{key[0]}{int(key[2:])}" for key in keys] == handed
    assert proxy.exchanges == []


def test_each_source_has_its_transform_and_its_errors(manifests: dict[str, S3Manifest]) -> None:
    expected = list(mix_of(manifests))
    of = {"b": {"transform": doubled}, "c": {"transform": bad, "on_error": "replace"}}
    for threads in (0, 3):
        dataset = mix_of(manifests, of=of, transform_threads=threads)
        loader = S3DataLoader(dataset, collate_fn=list)
        found = steps([loader])
        for sample, plain in zip(found, expected, strict=True):
            assert sample[0] == plain[0]  # a replacement is of the same source
            if plain[0] == "b":
                assert sample == f"b{2 * int(plain[1:])}"
            if plain[0] == "c":
                assert int(sample[1:]) % 2 == 0
        stats = loader.stats()
        replaced = sum(int(sample[1:]) % 2 for sample in expected if sample[0] == "c")
        assert stats["replaced"] == stats["sources"]["c"]["replaced"] == replaced
        counts = Counter(sample[0] for sample in found)
        assert {name: each["samples"] for name, each in stats["sources"].items()} == counts
        assert stats["samples"] == EPOCH
    few = mix_of(manifests, of={**of, "c": {**of["c"], "max_errors": 3}})
    with pytest.raises(S3FormatError, match="max_errors=3"):
        list(few)
    with pytest.raises(ValueError, match="bad"):
        list(mix_of(manifests, of={"c": {"transform": bad}}))


def test_another_mix_refuses_the_state(manifests: dict[str, S3Manifest]) -> None:
    state = mix_of(manifests).state_dict()
    pickle.loads(pickle.dumps(state))
    others = {
        "sources='a=500/1000": mix_of(manifests, {"a": 0.6, "b": 0.2, "c": 0.2}),
        "manifest='a=": mix_of({**manifests, "c": manifests["b"]}),
        "samples=157": mix_of(manifests, samples_per_epoch=158),
        "seed=7": mix_of(manifests, seed=8),
        "sources=": mix_of(manifests, of={"b": {"seed": 1}}),
        "manifest=": S3StreamingDataset(manifests["a"]),
    }
    for text, other in others.items():
        with pytest.raises(S3ConfigurationError, match="the state was saved with ") as caught:
            other.load_state_dict(state)
        assert text in str(caught.value)
        name = str(caught.value).split("the state was saved with ")[1].split("=")[0]
        assert f"this dataset has {name}=" in str(caught.value)
    mix_of(manifests, of={"b": {"on_error": "replace"}}).load_state_dict(state)
    with pytest.raises(S3ConfigurationError, match="the state was saved with manifest="):
        mix_of(manifests).load_state_dict(S3StreamingDataset(manifests["a"]).state_dict())


def test_what_cannot_be_mixed_is_refused(manifests: dict[str, S3Manifest]) -> None:
    mixed = mix_of(manifests)
    plain = S3StreamingDataset(manifests["a"])
    empty = S3StreamingDataset(manifests["a"].filter(lambda info: False))
    for sources, text in (
        ({}, "must have positive weights"),
        ({"a": (plain, 0)}, "must have positive weights"),
        ({"a": (plain, -1)}, "not negative"),
        ({"a": (plain, 1), "m": (mixed, 1)}, "cannot be mixed again"),
        ({"a": (plain, 1), "e": (empty, 1)}, "without samples"),
    ):
        with pytest.raises(S3ConfigurationError, match=text):
            S3StreamingDataset.mix(sources)
    assert len(S3StreamingDataset.mix({"a": (plain, 1), "e": (empty, 0)})) == SIZES["a"]
    with pytest.raises(TypeError, match="a source of a mix is an S3StreamingDataset"):
        S3StreamingDataset.mix({"a": ([1], 1)})  # type: ignore[dict-item]
    for wrong in ({"samples_per_epoch": 0}, {"samples_per_epoch": 2.0}, {"batch_size": 0}, {"seed": -1}):
        with pytest.raises(S3ConfigurationError):
            mix_of(manifests, **wrong)
    assert not hasattr(mixed, "manifest")


def test_clients_of_all_sources_are_used(
    manifests: dict[str, S3Manifest], s3_server: S3Server, proxy: RecordingProxy
) -> None:
    """Sources may be on different servers; look-ahead goes on over all of them."""
    dataset = mix_of(manifests, of={"b": {"endpoint": proxy.endpoint}}, look_ahead=6)
    assert list(dataset) == list(mix_of(manifests))
    gets = [each.path for each in proxy.of("GET")]
    assert len(gets) == sum(sample[0] == "b" for sample in mix_of(manifests))
    assert all("/mix/b/" in path for path in gets)


def name_of(sample: dict[str, Any]) -> str:
    return f"t{sample['__key__'][-2:]}"


def test_archives_are_mixed_with_objects(manifests: dict[str, S3Manifest], s3_server: S3Server, bucket: str) -> None:
    archive = tar({f"{i:02}.{kind}": bytes(1 + 90 * i) for i in range(40) for kind in ("jpg", "txt")})
    fill(s3_server, bucket, {"t/0.tar": archive})
    archives = S3Manifest.from_tar(f"s3://{bucket}/t/", **options(s3_server))
    runs = []
    for threads, balance in ((0, None), (3, None), (3, "bytes")):
        parts: dict[str, tuple[S3StreamingDataset, float]] = {
            "t": (S3StreamingDataset(archives, transform=name_of), 1),
            "a": (S3StreamingDataset(manifests["a"], transform=named), 1),
        }
        datasets = [
            S3StreamingDataset.mix(
                parts, batch_size=4, num_replicas=2, rank=rank, transform_threads=threads, balance=balance, seed=3
            )
            for rank in range(2)
        ]
        runs.append([sample for dataset in datasets for sample in S3DataLoader(dataset, collate_fn=list)])
    assert runs[0] == runs[1]
    assert len(runs[0]) == len(runs[2])
    flat = [sorted(sample for batch in run for sample in batch) for run in runs]
    assert flat[0] == flat[2]
    assert {sample for sample in flat[0] if sample[0] == "t"} == {f"t{i:02}" for i in range(40)}
