"""Custom reader constructors: what they are called with, and what they may return; and the names of ours."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from torch.utils.data import DataLoader

from s3torchconnector import S3Checkpoint, S3IterableDataset, S3MapDataset, S3Reader, S3ReaderConstructor
from s3torchconnector._s3client import S3Client
from s3torchconnector.s3reader import DCPOptimizedS3Reader, RangedS3Reader, SequentialS3Reader
from s3torchconnector.testing import S3Server
from tests.reading.support import client_of, content, open_object, put

CONTENTS = {f"key{i}": content(i, 1000) for i in range(5)}


@pytest.fixture
def client(s3_server: S3Server, bucket: str) -> Iterator[S3Client]:
    with client_of(s3_server.endpoint) as client:
        for key, data in CONTENTS.items():
            put(client, bucket, key, data)
        yield client


class BareReader(S3Reader):
    """As programs wrote them for 1.5.0, in which ``S3Reader`` is abstract: its constructor is never called."""

    def __init__(self, key: str, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self._name = key

    @property
    def bucket(self) -> str:
        return "somewhere"

    @property
    def key(self) -> str:
        return self._name

    def read(self, size: int | None = None) -> bytes:
        return self._file.read(size)

    def tell(self) -> int:
        return self._file.tell()


def bare(bucket: str, key: str, get_object_info: Any, get_stream: Any) -> S3Reader:
    return BareReader(key, b"".join(get_stream()))


def file(bucket: str, key: str, get_object_info: Any, get_stream: Any) -> Any:
    assert get_object_info().size == len(CONTENTS[key])
    return io.BytesIO(b"".join(get_stream()))


def keywords_only(*, bucket: str, key: str, get_object_info: Any, get_stream: Any) -> Any:
    return S3ReaderConstructor.sequential()(bucket, key, get_object_info, get_stream)


def any_keywords(**arguments: Any) -> Any:
    assert sorted(arguments) == ["bucket", "get_object_info", "get_stream", "key"]
    return S3ReaderConstructor.range_based(100)(**arguments)


def read(reader: Any) -> bytes:
    data: bytes = reader.read()
    return data


@pytest.mark.parametrize("constructor", [bare, file, keywords_only, any_keywords])
def test_constructors_of_programs(s3_server: S3Server, client: S3Client, bucket: str, constructor: Any) -> None:
    options: dict[str, Any] = {"region": "us-east-1", "endpoint": s3_server.endpoint}
    of_dataset = {**options, "transform": read, "reader_constructor": constructor}
    expected = list(CONTENTS.values())
    assert list(S3IterableDataset.from_prefix(f"s3://{bucket}/", **of_dataset)) == expected
    by_index = S3MapDataset.from_prefix(f"s3://{bucket}/", **of_dataset)
    assert [by_index[i] for i in range(len(by_index))] == expected
    loader: DataLoader[Any] = DataLoader(by_index, batch_size=5, collate_fn=list)
    assert list(loader) == [expected]
    checkpoint = S3Checkpoint(**options, reader_constructor=constructor)
    assert checkpoint.reader(f"s3://{bucket}/key1").read() == CONTENTS["key1"]


def test_leaving_an_epoch_with_readers_that_cannot_be_closed(
    s3_server: S3Server, client: S3Client, bucket: str
) -> None:
    dataset = S3IterableDataset.from_prefix(
        f"s3://{bucket}/", region="us-east-1", endpoint=s3_server.endpoint, reader_constructor=lambda **_: object()
    )
    samples = iter(dataset)
    assert type(next(samples)) is object
    samples.close()  # type: ignore[attr-defined]


def test_readers_that_cannot_prefetch_are_made_one_by_one(s3_server: S3Server, client: S3Client, bucket: str) -> None:
    """Each may hold its whole object."""
    made: list[str] = []

    def constructor(bucket: str, key: str, get_object_info: Any, get_stream: Any) -> Any:
        made.append(key)
        return io.BytesIO(b"".join(get_stream()))

    dataset = S3IterableDataset.from_prefix(
        f"s3://{bucket}/", region="us-east-1", endpoint=s3_server.endpoint, reader_constructor=constructor
    )
    for i, _ in enumerate(dataset):
        assert len(made) == i + 1
    assert made == list(CONTENTS)


def test_a_bare_reader_shows_itself() -> None:
    reader = BareReader("key", b"some bytes")
    assert repr(reader) == "<BareReader s3://somewhere/key at 0>"
    assert (reader.readable(), reader.writable(), reader.seekable()) == (True, False, True)
    reader.close()
    assert reader.closed
    with pytest.raises(ValueError, match="closed"):
        reader.readinto(bytearray(3))


@pytest.mark.parametrize(
    ("constructor", "name"),
    [
        (None, "sequential"),
        (S3ReaderConstructor.default(), "sequential"),
        (S3ReaderConstructor.sequential(), "sequential"),
        (S3ReaderConstructor.range_based(), "range_based"),
        (S3ReaderConstructor.range_based(0), "range_based"),
        (S3ReaderConstructor.dcp_optimized(), "dcp_optimized"),
        (S3ReaderConstructor.dcp_optimized(0), "dcp_optimized"),
        (bare, "unknown"),
        (S3Reader, "unknown"),
        (partial(bare, bucket="b"), "unknown"),
    ],
)
def test_names_of_ways_of_reading(constructor: Any, name: str) -> None:
    """The same as those of 1.5.0."""
    assert S3ReaderConstructor.get_reader_type_string(constructor) == name


def test_a_negative_buffer_is_none(client: S3Client, bucket: str) -> None:
    constructor = S3ReaderConstructor.range_based(-1)
    with open_object(client, bucket, "key1", reader_constructor=constructor) as reader:
        assert reader.read() == CONTENTS["key1"]
    assert S3ReaderConstructor.get_reader_type_string(constructor) == "range_based"


@pytest.mark.parametrize(
    ("constructor", "kind"),
    [
        (S3ReaderConstructor.sequential(), SequentialS3Reader),
        (S3ReaderConstructor.range_based(), RangedS3Reader),
        (S3ReaderConstructor.dcp_optimized(), DCPOptimizedS3Reader),
        (partial(RangedS3Reader, buffer_size=0), RangedS3Reader),
        (RangedS3Reader, RangedS3Reader),
    ],
)
def test_kinds_of_readers_by_name(client: S3Client, bucket: str, constructor: Any, kind: type) -> None:
    with open_object(client, bucket, "key1", reader_constructor=constructor) as reader:
        kinds = (SequentialS3Reader, RangedS3Reader, DCPOptimizedS3Reader)
        assert [isinstance(reader, each) for each in kinds] == [each is kind for each in kinds]
        assert pickle.loads(pickle.dumps(reader)).read() == CONTENTS["key1"]
