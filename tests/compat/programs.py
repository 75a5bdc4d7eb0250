"""Programs as users of 1.5.0 write them. ``python programs.py NAME BUCKET`` prints what one of them sees, as JSON.

This file runs in the environment of 1.5.0, too: it imports nothing of the tests, and nothing that 1.5.0 lacks.
"""

from __future__ import annotations

import io
import json
import sys
import warnings
from functools import partial
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.utils.data import DataLoader

import s3torchconnector.s3iterable_dataset as iterable_names
import s3torchconnector.s3map_dataset as map_names
from s3torchconnector import S3ClientConfig, S3Exception, S3IterableDataset, S3MapDataset, S3ReaderConstructor
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._s3client import S3Client
from s3torchconnector._s3dataset_common import parse_s3_uri
from s3torchconnector.dcp import (
    BinaryPrefixStrategy,
    HexPrefixStrategy,
    NumericPrefixStrategy,
    S3StorageReader,
    S3StorageWriter,
)
from s3torchconnector.dcp.s3_file_system import S3FileSystem

_REGION = "us-east-1"
_CONFIG = S3ClientConfig(force_path_style=True)


def _client() -> S3Client:
    return S3Client(_REGION, s3client_config=_CONFIG)


def _store(bucket: str, *keys: str) -> list[str]:
    for key in keys:
        with _client().put_object(bucket, key) as writer:
            writer.write(key.encode())
    return [f"s3://{bucket}/{key}" for key in keys]


def write_through_the_client(bucket: str) -> Any:
    """Save a tensor and a few lines through writers of the client."""
    client = _client()
    with client.put_object(bucket, "weights.pt") as writer:
        torch.save({"w": torch.arange(5)}, writer)
        ended_at = writer.tell()
    lines = client.put_object(bucket, "lines.txt", storage_class="STANDARD")
    seen = [type(lines).__name__, lines.closed, lines.writable(), lines.readable(), lines.write(b"one\n"), lines.tell()]
    lines.close()
    loaded = torch.load(io.BytesIO(client.get_object(bucket, "weights.pt").read()))
    text = client.get_object(bucket, "lines.txt").read().decode()
    return [
        *seen, lines.closed, writer.closed, loaded["w"].tolist(), text,
        ended_at == client.head_object(bucket, "weights.pt").size,
    ]  # fmt: skip


class NewestFirst(S3MapDataset):
    """Objects in reversed order, found by the package's own helpers, in a constructor of its own."""

    def __init__(self, uri: str, suffix: str) -> None:
        super().__init__(_REGION, partial(self._matching, uri, suffix), transform=_text, s3client_config=_CONFIG)

    @staticmethod
    def _matching(uri: str, suffix: str, client: S3Client) -> Any:
        found = map_names.get_objects_from_prefix(uri, client)
        return reversed([item for item in found if item.key.endswith(suffix)])


def _text(reader: Any) -> str:
    return str(reader.key) + "=" + reader.read().decode()


def use_the_helpers_of_the_datasets(bucket: str) -> Any:
    """List and name objects by the functions that the modules of the datasets import."""
    uris = _store(bucket, "a/1.txt", "a/2.txt", "a/3.bin")
    client = _client()
    named = iterable_names.get_objects_from_uris(uris[:2], client)
    sharded = S3IterableDataset(
        _REGION, partial(iterable_names.get_objects_from_prefix, f"s3://{bucket}/a/"), transform=_text,
        s3client_config=_CONFIG, enable_sharding=True,
    )  # fmt: skip
    plain = S3MapDataset(
        _REGION,
        partial(map_names.get_objects_from_uris, uris[1]),
        transform=map_names.identity,
        s3client_config=_CONFIG,
    )
    newest = NewestFirst(f"s3://{bucket}/a/", ".txt")
    listed = iterable_names.get_objects_from_prefix(f"s3://{bucket}/a/", client)
    first, again = next(listed), map_names.get_objects_from_uris(uris[:2], client)  # type: ignore[call-overload]
    return [
        [first.key, first.object_info.key, first.object_info.size],
        [[item.key for item in listed], list(listed), next(again).key, [item.key for item in again]],  # type: ignore[call-overload]
        [item.key for item in named],
        list(sharded),
        [newest[i] for i in range(len(newest))],
        plain[0].read().decode(),
        parse_s3_uri("s3://bucket/a/b"),
        parse_s3_uri("s3://bucket"),
    ]


class Captions(S3MapDataset):
    """Pairs of objects: an override reads the neighbour, too."""

    @property
    def _dataset_bucket_key_pairs(self) -> Any:
        return [pair for pair in super()._dataset_bucket_key_pairs if not pair.key.endswith(".bin")]

    def _get_object(self, i: int) -> Any:
        bucket, key, info = self._dataset_bucket_key_pairs[i]
        reader = self._get_client().get_object(bucket, key, object_info=info)
        reader.label = f"{i}:{key}"
        return reader


class Named(S3IterableDataset):
    def _get_transformed_object(self, bucket_key: Any) -> Any:
        return [bucket_key.key, super()._get_transformed_object(bucket_key)]


class Counting(S3Client):
    """A client that notes what is opened."""

    def __init__(self) -> None:
        super().__init__(_REGION, s3client_config=_CONFIG)
        self.opened: list[str] = []

    def get_object(self, bucket: str, key: str, **options: Any) -> Any:
        self.opened.append(key)
        return super().get_object(bucket, key, **options)


def look_into_a_map_dataset(bucket: str) -> Any:
    """Names, slices and readers of a map dataset, and subclasses that override its hooks."""
    _store(bucket, "a/1.txt", "a/2.txt", "a/3.bin")
    place = {"region": _REGION, "s3client_config": _CONFIG}
    dataset = S3MapDataset.from_prefix(f"s3://{bucket}/a/", transform=_text, **place)  # type: ignore[arg-type]
    pairs = dataset._dataset_bucket_key_pairs
    name, key, info = pairs[0]
    seen = [name == bucket, key, pairs[1][1], info.size, [pair.key for pair in pairs[1:]], len(pairs)]
    seen += [dataset._get_object(1).read().decode(), dataset._region, list(dataset._transform(dataset._get_object(2)))]
    labelled = Captions.from_prefix(f"s3://{bucket}/a/", transform=lambda reader: reader.label, **place)  # type: ignore[arg-type]
    dataset._transform = lambda reader: len(reader.read())
    seen += [dataset[0], [labelled[i] for i in range(len(labelled))], list(DataLoader(labelled, batch_size=2))]
    dataset._bucket_key_pairs = pairs[2:]
    return [
        *seen,
        len(dataset),
        S3BucketKeyData("b", "k") == ("b", "k", None),
        S3BucketKeyData("b", "k")._replace(key="j"),
    ]


def describe_objects_in_a_reader_constructor(bucket: str) -> Any:
    """A constructor that asks what is known of an object before it reads it."""
    _store(bucket, "a/1.txt", "a/22.txt")
    described = []

    def construct(bucket: str, key: str, get_object_info: Any, get_stream: Any) -> Any:
        info = get_object_info()
        digest = info.etag.strip('"').partition("-")[0]  # 1.5.0 stores in parts, so it ends with -1
        described.append([getattr(info, "key", None), info.size, len(digest), info.last_modified > 10**9])
        return S3ReaderConstructor.sequential()(
            bucket=bucket, key=key, get_object_info=get_object_info, get_stream=get_stream
        )

    place = {"region": _REGION, "s3client_config": _CONFIG, "transform": _text, "reader_constructor": construct}
    indexed = S3MapDataset.from_prefix(f"s3://{bucket}/a/", **place)  # type: ignore[arg-type]
    in_order = S3IterableDataset.from_prefix(f"s3://{bucket}/a/", **place)  # type: ignore[arg-type]
    return [indexed[1], indexed[0], list(in_order), described]


def override_the_hooks_of_an_iterable_dataset(bucket: str) -> Any:
    """A subclass that names its samples, and a client that the program assigns."""
    _store(bucket, "a/1.txt", "a/2.txt")
    place = {"region": _REGION, "s3client_config": _CONFIG}
    named = Named.from_prefix(f"s3://{bucket}/a/", transform=_text, **place)  # type: ignore[arg-type]
    counted = S3IterableDataset.from_prefix(f"s3://{bucket}/a/", transform=_text, **place)  # type: ignore[arg-type]
    indexed = S3MapDataset.from_prefix(f"s3://{bucket}/a/", transform=_text, **place)  # type: ignore[arg-type]
    first, second, third = Counting(), Counting(), Counting()
    counted._client, indexed._client = first, second
    files = S3FileSystem(_REGION, s3client_config=_CONFIG)
    files._client = third
    with files.create_stream(f"s3://{bucket}/a/1.txt", "rb") as stream:
        read = stream.read().decode()
    return [list(named), list(counted), first.opened, indexed[1], second.opened, read, third.opened]


def _first_words(call: Any, *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except (S3Exception, ValueError) as error:
        kind = "S3Exception" if isinstance(error, S3Exception) else "ValueError"
        return [kind, str(error)[: len("Service error: The object was not found")]]


def tell_errors_by_their_first_words(bucket: str) -> Any:
    """Copy and rename what is missing, and check paths."""
    client, files = _client(), S3FileSystem(_REGION, s3client_config=_CONFIG)
    valid = S3StorageWriter.validate_checkpoint_id
    none = _first_words(lambda: S3MapDataset.from_prefix(None, region=_REGION)[0])  # type: ignore[arg-type]
    return [
        _first_words(client.copy_object, bucket, "missing", bucket, "target"),
        _first_words(files.rename, f"s3://{bucket}/missing", f"s3://{bucket}/target"),
        [valid(path) for path in ("s3://", "s3:///", "s3:///key", "s3://bucket", "s3://bucket/a", "/tmp/a", "")],
        none[0],
    ]


class Letters(NumericPrefixStrategy):
    def _format_number(self, number: int, length: int) -> str:
        return format(number, f"0{length}b").replace("0", "a").replace("1", "b")


def look_into_prefix_strategies(bucket: str) -> Any:
    """The maps of prefix strategies, one of them of the program's own."""
    chosen = [
        BinaryPrefixStrategy(epoch_num=2, min_prefix_length=3, prefix_count=3),
        HexPrefixStrategy(prefix_count=2),
        Letters(base=2, min_prefix_length=1, prefix_count=4),
    ]
    chosen[0].prefix_map = [*chosen[0].prefix_map, "x"]
    return [[each.prefix_map, each.min_prefix_len, each.prefix_count, each.base, each(3)] for each in chosen]


def load_by_a_reader_of_its_own(bucket: str) -> Any:
    """Load a distributed checkpoint, and note which files the program's own constructor opens."""
    path, opened = f"s3://{bucket}/step-1", []
    state = {"w": torch.arange(6).reshape(2, 3), "step": 3}
    dcp.save(state, storage_writer=S3StorageWriter(_REGION, path, s3client_config=_CONFIG))

    def noted(bucket: str, key: str, get_object_info: Any, get_stream: Any) -> Any:
        opened.append(key)
        construct = S3ReaderConstructor.sequential()
        return construct(bucket=bucket, key=key, get_object_info=get_object_info, get_stream=get_stream)

    found = {"w": torch.zeros(2, 3, dtype=torch.int64), "step": 0}
    dcp.load(found, storage_reader=S3StorageReader(_REGION, path, _CONFIG, reader_constructor=noted))
    return [found["w"].tolist(), found["step"], sorted({key[:11] for key in opened})]  # type: ignore[attr-defined]


_PROGRAMS = (
    load_by_a_reader_of_its_own,
    tell_errors_by_their_first_words,
    look_into_prefix_strategies,
    write_through_the_client,
    use_the_helpers_of_the_datasets,
    look_into_a_map_dataset,
    describe_objects_in_a_reader_constructor,
    override_the_hooks_of_an_iterable_dataset,
)
PROGRAMS = {program.__name__: program for program in _PROGRAMS}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(PROGRAMS[sys.argv[1]](sys.argv[2])))
