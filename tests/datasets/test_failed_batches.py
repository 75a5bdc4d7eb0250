"""One bad sample of a batch does not cost the others: they are not fetched twice when the program goes on."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from s3torchconnector import S3MapDataset, S3Reader
from tests.datasets.support import HeldObjects, config, wait_until_budget_is_free

_COUNT, _BAD = 8, 3


def _failing(server: HeldObjects, times: int = 1) -> Callable[[S3Reader], bytes]:
    """A transform that cannot decode one object, so many times; all have been requested by then."""
    left = [times]

    def transform(reader: S3Reader) -> bytes:
        data = reader.read()
        if reader.key == str(_BAD) and left[0]:
            left[0] -= 1
            server.wait_for(_COUNT)
            raise ValueError("cannot decode this")
        return data

    return transform


class Overriding(S3MapDataset):
    def __getitem__(self, i: int) -> Any:
        return [super().__getitem__(i)]


def _requests(server: HeldObjects) -> Counter[int]:
    return Counter(server.seen)


def test_asking_again_fetches_only_the_bad_sample_again() -> None:
    with HeldObjects(_COUNT) as server:
        made: Counter[str] = Counter()
        failing = _failing(server)
        dataset = server.map_dataset(lambda reader: made.update([reader.key]) or failing(reader))
        with pytest.raises(ValueError, match="cannot decode"):
            dataset.__getitems__(range(_COUNT))
        assert dataset.__getitems__(range(_COUNT)) == [server.content(i) for i in range(_COUNT)]
        assert _requests(server) == {i: 1 + (i == _BAD) for i in range(_COUNT)}
        assert made == {str(i): 1 + (i == _BAD) for i in range(_COUNT)}
        assert dataset.__getitems__([0, 7]) == [server.content(0), server.content(7)]  # anew
        assert _requests(server)[0] == _requests(server)[7] == 2


@pytest.mark.parametrize("order", [range(_COUNT), range(_COUNT - 1, -1, -1)])
def test_asking_one_by_one_fetches_only_the_bad_sample_again(order: range) -> None:
    with HeldObjects(_COUNT) as server:
        dataset = server.map_dataset(_failing(server))
        with pytest.raises(ValueError, match="cannot decode"):
            dataset.__getitems__(range(_COUNT))
        assert [dataset[i] for i in order] == [server.content(i) for i in order]
        assert _requests(server) == {i: 1 + (i == _BAD) for i in range(_COUNT)}


def test_asking_without_the_bad_sample_fetches_nothing() -> None:
    with HeldObjects(_COUNT) as server:
        dataset = server.map_dataset(_failing(server, times=9))
        with pytest.raises(ValueError, match="cannot decode"):
            dataset.__getitems__(range(_COUNT))
        others = [i for i in range(_COUNT) if i != _BAD]
        assert dataset.__getitems__(others) == [server.content(i) for i in others]
        assert _requests(server) == dict.fromkeys(range(_COUNT), 1)


def test_an_error_of_s3_costs_its_own_sample() -> None:
    with HeldObjects(_COUNT, missing=[_BAD], hold=[_BAD]) as server:
        dataset = server.map_dataset(lambda reader: server.wait_for(_COUNT) or server.release() or reader.read())
        for _ in range(2):
            with pytest.raises(FileNotFoundError):
                dataset.__getitems__(range(_COUNT))
        assert [dataset[i] for i in range(_BAD)] == [server.content(i) for i in range(_BAD)]
        assert _requests(server) == {i: 1 + (i == _BAD) for i in range(_COUNT)}


def test_a_subclass_is_not_called_twice_for_a_sample() -> None:
    with HeldObjects(_COUNT) as server:
        dataset = Overriding.from_objects(
            server.uris, region="us-east-1", endpoint=server.endpoint, transform=_failing(server),
            s3client_config=config(),
        )  # fmt: skip
        assert len(dataset) == _COUNT
        with pytest.raises(ValueError, match="cannot decode"):
            dataset.__getitems__(range(_COUNT))
        assert dataset[0] == [server.content(0)]  # it calls itself: made and fetched anew
        assert dataset.__getitems__(range(_COUNT)) == [[server.content(i)] for i in range(_COUNT)]
        assert _requests(server) == {i: 1 + (i in (0, _BAD)) for i in range(_COUNT)}


def test_another_transform_gets_its_own_samples() -> None:
    with HeldObjects(_COUNT) as server:
        dataset = server.map_dataset(_failing(server))
        with pytest.raises(ValueError, match="cannot decode"):
            dataset.__getitems__(range(_COUNT))
        dataset._transform = lambda reader: len(reader.read())
        assert dataset.__getitems__(range(_COUNT)) == [server.size] * _COUNT


def test_the_next_batch_drops_readers_that_were_not_taken() -> None:
    class Sample:
        pass

    with HeldObjects(_COUNT, hold=range(4, _COUNT), missing=[_BAD]) as server:
        samples: list[weakref.ref[Sample]] = []

        def transform(reader: S3Reader) -> Sample:
            reader.read()
            sample = Sample()
            samples.append(weakref.ref(sample))
            return sample

        dataset = server.map_dataset(transform)
        with pytest.raises(FileNotFoundError):
            dataset.__getitems__(range(_COUNT))
        gc.collect()
        assert all(sample() for sample in samples)
        dataset.__getitems__([])
        gc.collect()
        assert not any(sample() for sample in samples)
        wait_until_budget_is_free(dataset)  # what the server holds is cancelled


def test_the_rest_of_a_batch_is_not_pickled() -> None:
    with HeldObjects(_COUNT) as server:
        dataset = server.map_dataset(_cannot_decode)
        with pytest.raises(ValueError, match="cannot decode"):
            dataset.__getitems__(range(_COUNT))
        copy = pickle.loads(pickle.dumps(dataset))
        assert copy._rest is None
        assert copy[0] == server.content(0)


def _cannot_decode(reader: S3Reader) -> bytes:
    if reader.key == str(_BAD):
        raise ValueError("cannot decode this")
    return reader.read()
