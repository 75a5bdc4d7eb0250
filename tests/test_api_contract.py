"""The contract with the user: every documented name, parameter, default, base class and import path.

Written down here by hand from the API reference of the connector that this package takes the place of. A failure
means that a program written against the reference may break.
"""

from __future__ import annotations

import importlib
import inspect
import io
import typing
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from inspect import Parameter
from typing import Any

import pytest
import torch.utils.data
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from torch.distributed.checkpoint.filesystem import FileSystemBase, FileSystemReader, FileSystemWriter

import s3torchconnector
from s3torchconnector import (
    S3Checkpoint,
    S3CheckpointManager,
    S3ClientConfig,
    S3IterableDataset,
    S3MapDataset,
    S3Reader,
    S3ReaderConstructor,
    S3Writer,
    _errors,
    errors,
)
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo
from s3torchconnector.dcp import (
    BinaryPrefixStrategy,
    HexPrefixStrategy,
    NumericPrefixStrategy,
    RoundRobinPrefixStrategy,
    S3FileSystem,
    S3StorageReader,
    S3StorageWriter,
)
from s3torchconnector.lightning import S3LightningCheckpoint
from s3torchconnector.s3reader import S3ReaderConstructorProtocol
from tests.servers.warm import WarmPython

_Parameters = list[tuple[str, Any, Any]]

REQUIRED = Parameter.empty
IDENTITY = "the identity function"
POSITIONAL, KEYWORD = Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY
FURTHER_KEYWORDS: _Parameters = [("kwargs", Parameter.VAR_KEYWORD, REQUIRED)]
_MIB = 1024 * 1024


def positional(**defaults: Any) -> _Parameters:
    return [(name, POSITIONAL, default) for name, default in defaults.items()]


def keyword(**defaults: Any) -> _Parameters:
    return [(name, KEYWORD, default) for name, default in defaults.items()]


_MAP_DATASET = {"endpoint": None, "transform": IDENTITY, "s3client_config": None}
_ITERABLE_DATASET = {**_MAP_DATASET, "enable_sharding": False}
_NUMERIC = {"epoch_num": None, "min_prefix_length": 10, "prefix_count": None}

_SIGNATURES: list[tuple[Callable[..., Any], _Parameters]] = [
    (S3Reader, positional(bucket=REQUIRED, key=REQUIRED, get_object_info=REQUIRED, get_stream=REQUIRED)),
    (S3Reader.prefetch, []),
    (S3Reader.readinto, positional(buf=REQUIRED)),
    (S3Reader.read, positional(size=None)),
    (S3Reader.seek, [("offset", Parameter.POSITIONAL_ONLY, REQUIRED), ("whence", Parameter.POSITIONAL_ONLY, 0)]),
    (S3Reader.tell, []),
    (S3Reader.readable, []),
    (S3Reader.writable, []),
    (S3Writer, positional(stream=REQUIRED)),
    (S3Writer.write, positional(data=REQUIRED)),
    (S3Writer.close, []),
    (S3Writer.flush, []),
    (S3Writer.readable, []),
    (S3Writer.writable, []),
    (S3Writer.tell, []),
    (S3IterableDataset, positional(region=REQUIRED, get_dataset_objects=REQUIRED, **_ITERABLE_DATASET)),
    (S3IterableDataset.from_objects, positional(object_uris=REQUIRED) + keyword(region=REQUIRED, **_ITERABLE_DATASET)),
    (S3IterableDataset.from_prefix, positional(s3_uri=REQUIRED) + keyword(region=REQUIRED, **_ITERABLE_DATASET)),
    (S3MapDataset, positional(region=REQUIRED, get_dataset_objects=REQUIRED, **_MAP_DATASET)),
    (S3MapDataset.from_objects, positional(object_uris=REQUIRED) + keyword(region=REQUIRED, **_MAP_DATASET)),
    (S3MapDataset.from_prefix, positional(s3_uri=REQUIRED) + keyword(region=REQUIRED, **_MAP_DATASET)),
    (S3Checkpoint, positional(region=REQUIRED, endpoint=None, s3client_config=None)),
    (S3Checkpoint.reader, positional(s3_uri=REQUIRED)),
    (S3Checkpoint.writer, positional(s3_uri=REQUIRED)),
    # What users of the connector rely on in addition to the reference.
    (S3ReaderConstructor.sequential, []),
    (S3ReaderConstructor.range_based, positional(buffer_size=None)),
    (S3ReaderConstructor.dcp_optimized, positional(max_gap_size=32 * _MIB)),
    (S3ReaderConstructor.default, []),
    (S3Client, positional(region=REQUIRED) + keyword(endpoint=None, user_agent=None, s3client_config=None)),
    (
        S3Client.get_object,
        positional(bucket=REQUIRED, key=REQUIRED) + keyword(object_info=None, reader_constructor=None),
    ),
    (S3Client.put_object, positional(bucket=REQUIRED, key=REQUIRED, storage_class=None)),
    (S3Client.list_objects, positional(bucket=REQUIRED, prefix="", delimiter="", max_keys=1000)),
    (S3Client.head_object, positional(bucket=REQUIRED, key=REQUIRED)),
    (S3Client.delete_object, positional(bucket=REQUIRED, key=REQUIRED)),
    (
        S3Client.copy_object,
        positional(src_bucket=REQUIRED, src_key=REQUIRED, dst_bucket=REQUIRED, dst_key=REQUIRED),
    ),
    (S3BucketKeyData, positional(bucket=REQUIRED, key=REQUIRED, object_info=None)),
    # Distributed checkpoints, and Lightning.
    (
        S3StorageWriter,
        positional(region=REQUIRED, path=REQUIRED, s3client_config=None, prefix_strategy=None, thread_count=1)
        + FURTHER_KEYWORDS,
    ),
    (
        S3StorageReader,
        positional(region=REQUIRED, path=REQUIRED, s3client_config=None, reader_constructor=None) + FURTHER_KEYWORDS,
    ),
    (S3FileSystem, positional(region=REQUIRED, s3_client=None, s3client_config=None, reader_constructor=None)),
    (S3FileSystem.create_stream, positional(path=REQUIRED, mode=REQUIRED)),
    (S3FileSystem.concat_path, positional(path=REQUIRED, suffix=REQUIRED)),
    (S3FileSystem.init_path, positional(path=REQUIRED)),
    (S3FileSystem.rename, positional(old_path=REQUIRED, new_path=REQUIRED)),
    (S3FileSystem.mkdir, positional(path=REQUIRED)),
    (S3FileSystem.exists, positional(path=REQUIRED)),
    (S3FileSystem.rm_file, positional(path=REQUIRED)),
    (S3FileSystem.ls, positional(path=REQUIRED)),
    (S3FileSystem.validate_checkpoint_id, positional(checkpoint_id=REQUIRED)),
    (NumericPrefixStrategy, positional(base=10, **_NUMERIC)),
    (BinaryPrefixStrategy, positional(**_NUMERIC)),
    (HexPrefixStrategy, positional(**_NUMERIC)),
    (RoundRobinPrefixStrategy, positional(user_prefixes=REQUIRED, epoch_num=None)),
    (S3LightningCheckpoint, positional(region=REQUIRED, s3client_config=None)),
    (S3LightningCheckpoint.save_checkpoint, positional(checkpoint=REQUIRED, path=REQUIRED, storage_options=None)),
    (S3LightningCheckpoint.load_checkpoint, positional(path=REQUIRED, map_location=None)),
    (S3LightningCheckpoint.remove_checkpoint, positional(path=REQUIRED)),
    (S3LightningCheckpoint.teardown, []),
    # What this package has beyond the reference, by its own README.
    (
        S3CheckpointManager,
        positional(uri=REQUIRED, region=REQUIRED)
        + keyword(endpoint=None, s3client_config=None, keep_last=None, keep_every=None),
    ),
    (S3CheckpointManager.steps, []),
    (S3CheckpointManager.latest, []),
    (S3CheckpointManager.save, positional(step=REQUIRED, state_dict=REQUIRED)),
    (S3CheckpointManager.save_async, positional(step=REQUIRED, state_dict=REQUIRED)),
    (
        S3CheckpointManager.load,
        positional(step=None) + keyword(state_dict=None, map_location=None, weights_only=None),
    ),
    (S3CheckpointManager.delete, positional(step=REQUIRED)),
    (S3CheckpointManager.verify, positional(step=REQUIRED)),
    (S3CheckpointManager.clean, positional(dry_run=True) + keyword(min_age=0.0)),
    (S3CheckpointManager.close, []),
    (S3Checkpoint.writer, positional(s3_uri=REQUIRED) + keyword(overwrite=True)),
    (S3Checkpoint.save_safetensors, positional(state_dict=REQUIRED, uri=REQUIRED, metadata=None)),
    (S3Checkpoint.load_safetensors, positional(uri=REQUIRED) + keyword(names=None, device="cpu")),
]


def parameters(callable_: Callable[..., Any]) -> _Parameters:
    found = [each for each in inspect.signature(callable_).parameters.values() if each.name != "self"]
    return [(each.name, each.kind, _named_identity(each.default)) for each in found]


def _named_identity(default: Any) -> Any:
    """The reference shows ``transform=identity``: any function that gives back what it is given."""
    probe = object()
    return IDENTITY if inspect.isfunction(default) and default(probe) is probe else default


@pytest.mark.parametrize(
    ("callable_", "documented"), _SIGNATURES, ids=[callable_.__qualname__ for callable_, _ in _SIGNATURES]
)
def test_signature(callable_: Callable[..., Any], documented: _Parameters) -> None:
    """The documented parameters come first, unchanged. New ones are optional, and come after them."""
    found = parameters(callable_)
    assert [each for each in found if each[0] in {name for name, _, _ in documented}] == documented
    documented_positional = [each for each in documented if each[1] not in (KEYWORD, Parameter.VAR_KEYWORD)]
    assert found[: len(documented_positional)] == documented_positional
    new = [each for each in found if each not in documented]
    assert all(default is not REQUIRED for _, _, default in new), f"new parameters must be optional: {new}"


@pytest.mark.parametrize("kind", [S3StorageWriter, S3StorageReader, S3FileSystem, S3LightningCheckpoint])
def test_whatever_takes_a_region_takes_an_endpoint(kind: type) -> None:
    assert inspect.signature(kind).parameters["endpoint"].default is None


def test_the_class_methods_are_class_methods() -> None:
    for dataset in (S3IterableDataset, S3MapDataset):
        for name in ("from_objects", "from_prefix"):
            assert isinstance(inspect.getattr_static(dataset, name), classmethod)
    for storage in (S3FileSystem, S3StorageReader, S3StorageWriter):
        assert isinstance(inspect.getattr_static(storage, "validate_checkpoint_id"), classmethod)
    for name in ("sequential", "range_based", "dcp_optimized", "default"):
        assert isinstance(inspect.getattr_static(S3ReaderConstructor, name), staticmethod)


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (S3Reader, io.BufferedIOBase),
        (S3Writer, io.BufferedIOBase),
        (S3IterableDataset, torch.utils.data.IterableDataset),
        (S3MapDataset, torch.utils.data.Dataset),
        (s3torchconnector.S3Exception, Exception),
        (S3StorageWriter, FileSystemWriter),
        (S3StorageReader, FileSystemReader),
        (S3FileSystem, FileSystemBase),
        (S3LightningCheckpoint, CheckpointIO),
    ],
)
def test_bases(kind: type, base: type) -> None:
    assert issubclass(kind, base)


@pytest.mark.parametrize("reader_constructor", [S3MapDataset, S3IterableDataset])
def test_datasets_take_a_reader_constructor(reader_constructor: Any) -> None:
    for callable_ in (reader_constructor, reader_constructor.from_prefix, reader_constructor.from_objects):
        assert inspect.signature(callable_).parameters["reader_constructor"].default is None


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (S3Reader, ["bucket", "key"]),
        (S3IterableDataset, ["region", "endpoint"]),
        (S3MapDataset, ["region", "endpoint"]),
    ],
)
def test_properties(kind: type, names: list[str]) -> None:
    assert all(isinstance(inspect.getattr_static(kind, name), property) for name in names)


def test_attributes() -> None:
    checkpoint = S3Checkpoint("eu-west-1")
    assert (checkpoint.region, checkpoint.endpoint) == ("eu-west-1", None)
    checkpoint = S3Checkpoint("eu-west-1", "http://localhost:1", S3ClientConfig())
    assert (checkpoint.region, checkpoint.endpoint) == ("eu-west-1", "http://localhost:1")
    for dataset in (S3MapDataset, S3IterableDataset):
        made = dataset.from_prefix("s3://bucket/", region="eu-west-1", endpoint="http://localhost:1")
        assert (made.region, made.endpoint) == ("eu-west-1", "http://localhost:1")
        assert isinstance(made, dataset)
        with pytest.raises(AttributeError):
            made.region = "us-east-1"  # type: ignore[misc]
    reader = S3Reader("bucket", "key", lambda: None, list)  # type: ignore[arg-type, return-value]
    assert (reader.bucket, reader.key) == ("bucket", "key")


def test_the_configuration() -> None:
    documented = [
        ("throughput_target_gbps", 10.0),
        ("part_size", 8388608),
        ("unsigned", False),
        ("force_path_style", False),
        ("max_attempts", 10),
        ("profile", None),
        ("requester_pays", False),
    ]
    assert is_dataclass(S3ClientConfig)
    found = fields(S3ClientConfig)
    assert [(field.name, field.default) for field in found[: len(documented)]] == documented
    assert all(type(field.default) is type(default) for field, (_, default) in zip(found, documented, strict=False))
    assert not any(field.kw_only for field in found[: len(documented)])
    assert all(field.kw_only for field in found[len(documented) :]), "anything new is keyword-only"
    assert S3ClientConfig(1.0, 5 * _MIB, True, True, 3, "profile") == S3ClientConfig(
        throughput_target_gbps=1.0, part_size=5 * _MIB, unsigned=True, force_path_style=True, max_attempts=3,
        profile="profile",
    )  # fmt: skip


def test_all_is_sorted_and_complete() -> None:
    assert s3torchconnector.__all__ == sorted(s3torchconnector.__all__)
    documented = {
        "S3Checkpoint", "S3ClientConfig", "S3Exception", "S3IterableDataset", "S3MapDataset", "S3Reader", "S3Writer",
        "S3CheckpointManager", "S3ReaderConstructor", "__version__",
    }  # fmt: skip
    assert documented <= set(s3torchconnector.__all__)  # tests/public_surface.txt has all of them
    for name in s3torchconnector.__all__:
        assert hasattr(s3torchconnector, name)
    assert s3torchconnector.__version__ == "2.0.0"


def test_errors_has_the_whole_tree() -> None:
    assert errors.__all__ == sorted(errors.__all__)
    tree = {name for name, each in vars(_errors).items() if isinstance(each, type) and issubclass(each, Exception)}
    assert set(errors.__all__) == tree
    assert all(getattr(errors, name) is getattr(_errors, name) for name in tree)
    assert errors.S3Exception is s3torchconnector.S3Exception


@pytest.mark.parametrize(
    ("path", "name", "is_"),
    [
        ("s3torchconnector", "S3Client", S3Client),
        ("s3torchconnector", "ObjectInfo", ObjectInfo),
        ("s3torchconnector", "S3ReaderConstructorProtocol", S3ReaderConstructorProtocol),
        ("s3torchconnector._s3client", "S3Client", S3Client),
        ("s3torchconnector._s3client", "S3ClientConfig", S3ClientConfig),
        ("s3torchconnector._s3bucket_key_data", "S3BucketKeyData", S3BucketKeyData),
        ("s3torchconnector.s3reader", "S3Reader", S3Reader),
        ("s3torchconnector.s3reader", "S3ReaderConstructor", S3ReaderConstructor),
        ("s3torchconnector.s3writer", "S3Writer", S3Writer),
        ("s3torchconnector.s3checkpoint", "S3Checkpoint", S3Checkpoint),
        ("s3torchconnector.s3map_dataset", "S3MapDataset", S3MapDataset),
        ("s3torchconnector.s3iterable_dataset", "S3IterableDataset", S3IterableDataset),
        ("s3torchconnector.dcp.s3_file_system", "S3FileSystem", S3FileSystem),
        ("s3torchconnector.dcp.s3_prefix_strategy", "HexPrefixStrategy", HexPrefixStrategy),
        ("s3torchconnector.lightning.s3_lightning_checkpoint", "S3LightningCheckpoint", S3LightningCheckpoint),
    ],
)
def test_import_paths(path: str, name: str, is_: object) -> None:
    assert getattr(importlib.import_module(path), name) is is_


@pytest.mark.parametrize(
    "kind",
    [
        S3Reader,
        S3Writer,
        S3IterableDataset,
        S3MapDataset,
        S3Checkpoint,
        S3ReaderConstructor,
        S3CheckpointManager,
        S3StorageWriter,
        S3StorageReader,
        S3FileSystem,
    ],
)
def test_type_hints_can_be_evaluated(kind: type) -> None:
    for name, member in vars(kind).items():
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if inspect.isfunction(function):
            assert typing.get_type_hints(function) or not function.__annotations__, name


def test_the_configuration_has_types() -> None:
    assert [field.type for field in fields(S3ClientConfig)[:3]] == [float, int, bool]
    assert typing.get_type_hints(S3ClientConfig)["part_size"] is int


_USES = """
import sys
import s3torchconnector

assert s3torchconnector.s3reader.S3Reader is s3torchconnector.S3Reader  # without an import of its own
assert set(s3torchconnector.__all__) <= set(dir(s3torchconnector))
s3torchconnector.S3Checkpoint("us-east-1")
unwanted = {
    "s3iterable_dataset", "s3checkpoint_manager", "_safetensors", "s3reader.dcp_optimized", "s3reader.ranged",
    "_metrics", "_write_options", "_customer_key", "_s3credentials", "_listing_results", "_wire._upload_documents",
    "_wire._socks", "_wire._tls_in_tls", "_identity._sigv4a",
    "_transfer.writing",
}
found = {f"s3torchconnector.{name}" for name in unwanted} & set(sys.modules)
assert not found, found
"""


def test_names_bring_only_what_they_need(warm_python: WarmPython) -> None:
    done = warm_python.run("-c", _USES)
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(AttributeError, match="has no attribute 'S3Chekpoint'"):
        s3torchconnector.S3Chekpoint  # noqa: B018


def test_a_reader_needs_a_bucket() -> None:
    with pytest.raises(ValueError, match=r"^Bucket should be specified"):
        S3Reader("", "key", lambda: None, list)  # type: ignore[arg-type, return-value]


def test_a_place_of_an_object_is_a_value() -> None:
    place = S3BucketKeyData("bucket", "key")
    assert (place.bucket, place.key, place.object_info) == ("bucket", "key", None)
    assert place == S3BucketKeyData(bucket="bucket", key="key", object_info=None)
    assert hash(place) == hash(S3BucketKeyData("bucket", "key"))


@pytest.mark.parametrize("size", [-1, -(8 * _MIB)])
def test_no_negative_gaps(size: int) -> None:
    with pytest.raises(ValueError, match=f"max_gap_size={size}"):
        S3ReaderConstructor.dcp_optimized(size)
