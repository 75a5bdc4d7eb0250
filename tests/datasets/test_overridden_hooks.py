"""Subclasses that override a method that opens objects, as those for 1.5.0: the objects are on their way."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from s3torchconnector import S3Client, S3IterableDataset, S3MapDataset, S3Reader, S3ReaderConstructor
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from tests.datasets.support import HeldObjects, config, read, wait_until_budget_is_free

_COUNT = 8


class Named(S3IterableDataset):
    """Calls what it overrides."""

    def _get_transformed_object(self, bucket_key: S3BucketKeyData) -> Any:
        return bucket_key.key, super()._get_transformed_object(bucket_key)


class Opening(S3IterableDataset):
    """Does what the overridden method of 1.5.0 does, with the client."""

    def _get_transformed_object(self, bucket_key: S3BucketKeyData) -> Any:
        bucket, key, info = bucket_key
        reader = self._get_client().get_object(
            bucket, key, object_info=info, reader_constructor=self._reader_constructor
        )
        return key, self._transform(reader)


class NamedByIndex(S3MapDataset):
    def __getitem__(self, i: int) -> Any:
        return str(i), super().__getitem__(i)


class OpeningByIndex(S3MapDataset):
    def _get_object(self, i: int) -> Any:
        item = self._dataset_bucket_key_pairs[i]
        return item.key, self._get_client().get_object(item.bucket, item.key, object_info=item.object_info)


def _place(server: HeldObjects, transform: Callable[[Any], Any]) -> dict[str, Any]:
    return {
        "region": "us-east-1", "endpoint": server.endpoint, "transform": transform, "s3client_config": config(),
    }  # fmt: skip


def _waiting(server: HeldObjects) -> Callable[[S3Reader], bytes]:
    """A transform that reads the third object only after all of them have been requested."""

    def transform(reader: S3Reader) -> bytes:
        if int(reader.key) > 1:
            server.wait_for(_COUNT)
            server.release()
        return reader.read()

    return transform


@pytest.mark.parametrize("constructor", [None, S3ReaderConstructor.range_based()])
@pytest.mark.parametrize("kind", [Named, Opening])
def test_look_ahead_goes_on_for_an_overridden_method(kind: type[S3IterableDataset], constructor: Any) -> None:
    with HeldObjects(_COUNT, hold=range(2, _COUNT)) as server:
        dataset = kind.from_objects(server.uris, **_place(server, _waiting(server)), reader_constructor=constructor)
        expected = [(str(i), server.content(i)) for i in range(_COUNT)]
        if constructor is not None:  # nothing of such a reader is fetched early, and nothing twice
            server.release()
            dataset._transform = read
        assert list(dataset) == expected
        assert sorted(server.seen) == list(range(_COUNT))


@pytest.mark.parametrize("way", ["__getitem__", "_get_object"])
def test_batches_are_fetched_concurrently_for_an_overridden_method(way: str) -> None:
    with HeldObjects(_COUNT, hold=range(2, _COUNT)) as server:
        whole = _waiting(server)
        kind, transform = NamedByIndex, whole
        if way == "_get_object":
            kind, transform = OpeningByIndex, lambda pair: (pair[0], whole(pair[1]))  # type: ignore[assignment]
        dataset = kind.from_objects(server.uris, **_place(server, transform))
        assert len(dataset) == _COUNT
        assert dataset.__getitems__(range(_COUNT)) == [(str(i), server.content(i)) for i in range(_COUNT)]
        assert sorted(server.seen) == list(range(_COUNT))


class Every(S3IterableDataset):
    """Opens only some of the objects, after the first ones."""

    def _get_transformed_object(self, bucket_key: S3BucketKeyData) -> Any:
        if int(bucket_key.key) in (2, 5):
            return None
        return super()._get_transformed_object(bucket_key)


def test_what_a_method_does_not_open_is_fetched_early_once_at_most() -> None:
    with HeldObjects(40) as server:
        dataset = Every.from_objects(server.uris, **_place(server, read), look_ahead=1)
        expected = [None if i in (2, 5) else server.content(i) for i in range(40)]
        assert list(dataset) == expected
        assert 5 not in server.seen  # as 2 was on its way for nothing
        first = len(server.seen)
        assert list(dataset) == expected
        assert server.seen[first:] == [i for i in range(40) if i not in (2, 5)]
        wait_until_budget_is_free(dataset)


class Unrelated(S3IterableDataset):
    """Opens other objects than those it is called for."""

    def _get_transformed_object(self, bucket_key: S3BucketKeyData) -> Any:
        return super()._get_transformed_object(bucket_key._replace(key=str(int(bucket_key.key) + 10)))


def test_nothing_is_fetched_early_for_a_method_that_opens_other_objects() -> None:
    with HeldObjects(20) as server:
        dataset = Unrelated.from_objects(server.uris[:10], **_place(server, read))
        assert list(dataset) == [server.content(i) for i in range(10, 20)]
        assert server.seen == list(range(10, 20))


class OwnIndices(S3MapDataset):
    """Indices of its own: pairs, of which each opens two objects."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: Any) -> Any:
        return [super(OwnIndices, self).__getitem__(each) for each in i]


def test_special_indices_are_left_to_the_subclass() -> None:
    with HeldObjects(8) as server:
        dataset = OwnIndices.from_objects(server.uris, **_place(server, read))
        pairs: Any = [(0, 1), (2, 3), (6, 7)]
        assert dataset.__getitems__(pairs) == [[server.content(a), server.content(b)] for a, b in pairs]
        assert server.seen == [0, 1, 2, 3, 6, 7]


class Counting(S3Client):
    def __init__(self, server: HeldObjects) -> None:
        super().__init__("us-east-1", endpoint=server.endpoint, s3client_config=config())
        self.opened: list[str] = []

    def get_object(self, bucket: str, key: str, **options: Any) -> Any:
        self.opened.append(key)
        return super().get_object(bucket, key, **options)


def test_a_client_of_the_program_sees_each_object_opened_once() -> None:
    with HeldObjects(_COUNT) as server:
        dataset = Named.from_objects(server.uris, **_place(server, read))
        client = dataset._client = Counting(server)
        assert [key for key, _ in dataset] == client.opened == [str(i) for i in range(_COUNT)]
        assert sorted(server.seen) == list(range(_COUNT))


def test_an_error_of_the_method_costs_one_sample() -> None:
    class Failing(Named):
        def _get_transformed_object(self, bucket_key: S3BucketKeyData) -> Any:
            sample = super()._get_transformed_object(bucket_key)
            if bucket_key.key == "3":
                raise ValueError("bad sample")
            return sample

    with HeldObjects(_COUNT) as server:
        dataset = Failing.from_objects(server.uris, **_place(server, read))
        samples, seen = iter(dataset), []
        for i in range(_COUNT):
            if i == 3:
                with pytest.raises(ValueError, match="bad sample"):
                    next(samples)
            else:
                seen.append(next(samples)[0])
        assert seen == [str(i) for i in range(_COUNT) if i != 3]
        assert sorted(server.seen) == list(range(_COUNT))


def test_leaving_the_loop_cancels_requests_in_flight() -> None:
    with HeldObjects(_COUNT, hold=range(3, _COUNT)) as server:
        dataset = Named.from_objects(server.uris, **_place(server, read))
        samples = iter(dataset)
        assert [next(samples)[0] for _ in range(3)] == ["0", "1", "2"]
        del samples
        gc.collect()
        wait_until_budget_is_free(dataset)
