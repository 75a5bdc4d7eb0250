"""``.metadata`` is read without running code that it names; what PyTorch and 1.5.0 store there comes back."""

from __future__ import annotations

import dataclasses
import enum
import gc
import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed._shard.sharded_tensor import metadata as sharded
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import _StorageInfo, _StoragePrefix
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import SavePlan

from s3torchconnector import S3CheckpointManager
from s3torchconnector._checkpoint_manager._distributed import sizes_of_files
from s3torchconnector._s3client import S3Client
from s3torchconnector.dcp import _metadata
from tests.dcp.support import keys_of, load, mixed_state, same, writer_of

_PROTOCOLS = range(3, pickle.HIGHEST_PROTOCOL + 1)
ran: list[str] = []


class Key(enum.Enum):
    """The class of a state's keys, made by a user."""

    ONE = 1


class _Attack:
    """An object that runs code when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def _metadata_of(**more: Any) -> Metadata:
    dtypes = (torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.complex64, torch.bool)
    described: dict[str, Any] = {
        str(dtype): TensorStorageMetadata(
            TensorProperties(dtype=dtype, memory_format=torch.channels_last),
            torch.Size([4, 5]),
            [ChunkStorageMetadata(torch.Size([0, 0]), torch.Size([4, 5]))],
        )
        for dtype in dtypes
    }
    described["bytes"] = BytesStorageMetadata()
    index = MetadataIndex("bytes", torch.Size([0]), 1)
    return Metadata(
        described,
        planner_data={"a.0": ("a", 0), "b": OrderedDict(x=(1, "y", {2.5, None}, frozenset([b"z", 1 + 2j])))},
        storage_data={index: _StorageInfo("__0_0.distcp", 0, 10, ["zstd"]), "prefix": _StoragePrefix("p")},
        storage_meta=StorageMeta(Path("/a/b"), "save", "load", ["module"]),  # as FileSystemWriter has it
        version="1",
        **more,
    )


@pytest.mark.parametrize("protocol", _PROTOCOLS)
def test_descriptions_of_checkpoints_round_trip(protocol: int) -> None:
    described = _metadata_of()
    read = _metadata.parse_metadata(pickle.dumps(described, protocol))
    assert isinstance(read.storage_meta, StorageMeta)
    assert read.storage_meta.checkpoint_id == PurePath("/a/b")
    assert type(read.storage_meta.checkpoint_id) is PurePosixPath
    described.storage_meta = read.storage_meta
    assert read == described


def test_properties_of_old_releases_round_trip() -> None:
    old = sharded.TensorProperties(torch.float16)
    read = _metadata.parse_metadata(pickle.dumps(Metadata({}, planner_data=[old, torch.strided, torch.device("cpu")])))
    assert read.planner_data == [old, torch.strided, torch.device("cpu")]


def test_members_of_enumerations_as_python_3_11_has_them() -> None:
    """They are pickled by ``getattr``, which is allowed for nothing else."""
    kind = type(TensorProperties().__getstate__()[3])
    pickled = pickle.dumps(Metadata({}, planner_data=_Attack(getattr, kind, "TORCH_CHANNELS_LAST")))
    assert _metadata.parse_metadata(pickled).planner_data is kind.TORCH_CHANNELS_LAST
    for other in ((kind, "mro"), (torch.Size, "__subclasses__"), ("", "format")):
        with pytest.raises(pickle.UnpicklingError, match="not a member of an enumeration"):
            _metadata.parse_metadata(pickle.dumps(Metadata({}, planner_data=_Attack(getattr, *other))))


def test_what_pytorch_saves_is_read(tmp_path: Path) -> None:
    dcp.save({"state": mixed_state(), "list": [{"a": (1, 2)}, 3]}, storage_writer=dcp.FileSystemWriter(tmp_path))
    data = (tmp_path / ".metadata").read_bytes()
    read, expected = _metadata.parse_metadata(data), pickle.loads(data)
    assert read.storage_meta is not None
    assert read.storage_meta.checkpoint_id == PurePath(tmp_path)
    read.storage_meta = expected.storage_meta
    assert read == expected


_ATTACKS = {
    "system": _Attack(os.system, "true"),
    "eval": _Attack(eval, "__import__('tests.dcp.test_metadata').dcp.test_metadata.ran.append('ran')"),
    "exec": _Attack(exec, "pass"),
    "import": _Attack(__import__, "antigravity"),
    "open": _Attack(open, "file", "w"),
    "encode": _Attack(__import__("_codecs").encode, b"", "zlib"),
    "a writer": _Attack(dcp.FileSystemWriter, "folder"),
    "torch": _Attack(torch.load, "file"),
    "a function of the module": _Attack(torch.distributed.checkpoint.metadata.dataclass, str),
    "unpickling": _Attack(pickle.loads, b"cposix\nsystem\n(Vtrue\ntR."),
    "ours": _Attack(S3CheckpointManager, "s3://bucket", "us-east-1"),
    "io": _Attack(io.BytesIO, b""),
}


@pytest.mark.parametrize("attack", _ATTACKS)
def test_nothing_else_is_run(attack: str) -> None:
    for protocol in _PROTOCOLS:
        with pytest.raises(pickle.UnpicklingError):
            _metadata.parse_metadata(pickle.dumps(Metadata({}, planner_data=_ATTACKS[attack]), protocol))
    assert ran == []


class _Keys(dict[str, Any]):
    """A user's own class with items and a state."""


def test_a_save_finds_the_files_of_any_description() -> None:
    odd: Any = _Keys(a=Key.ONE)
    odd.state = {Key.ONE, "more"}
    attacks = [*_ATTACKS.values(), _Attack(getattr, Key, "ONE"), _Attack(getattr, torch.Size, "mro")]
    described = _metadata_of()
    described.planner_data = [odd, *attacks[:-1]]
    for protocol in _PROTOCOLS:
        assert _metadata.parse_storage_data(pickle.dumps(described, protocol)) == described.storage_data
    assert ran == []
    described.planner_data = attacks
    with pytest.raises(pickle.UnpicklingError):
        _metadata.parse_storage_data(pickle.dumps(described))
    assert _metadata.parse_storage_data(pickle.dumps(Metadata({}))) == {}


@pytest.mark.parametrize("data", [b"", b"no pickle", pickle.dumps({"a": 1}), pickle.dumps(Metadata({}))[:-3]])
def test_other_bytes_than_a_description_are_an_error(data: bytes) -> None:
    with pytest.raises((pickle.UnpicklingError, EOFError)):
        _metadata.parse_metadata(data)


def test_what_a_program_has_declared_safe_is_read() -> None:
    pickled = pickle.dumps(Metadata({}, planner_data={"a": ("a", Key.ONE)}))
    with pytest.raises(pickle.UnpicklingError, match=r"add_safe_globals\(\[tests\.dcp\.test_metadata\.Key\]\)"):
        _metadata.parse_metadata(pickled)
    for declared in (Key, (Key, "tests.dcp.test_metadata.Key")):
        with torch.serialization.safe_globals([declared]):  # type: ignore[list-item]
            assert _metadata.parse_metadata(pickled).planner_data == {"a": ("a", Key.ONE)}


class _OwnPlanner(DefaultSavePlanner):
    """A planner whose description of a checkpoint also has a class of the program."""

    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        plans, described = super().create_global_plan(all_plans)
        return plans, dataclasses.replace(described, planner_data={**described.planner_data, "own": Key.ONE})


def test_a_planner_that_describes_by_its_own_class(bucket: str) -> None:
    """Its checkpoints can be saved, repeatedly and by a manager. To load one, the class must be declared safe."""
    path, state = f"s3://{bucket}/x", {"a": torch.ones(3)}
    for _ in range(2):
        dcp.save(state, storage_writer=writer_of(path), planner=_OwnPlanner())
        assert len(keys_of(bucket)) == 2
    with S3Client("us-east-1") as client:
        assert len(sizes_of_files(client, path)) == 1
    with pytest.raises(CheckpointException, match=r"add_safe_globals\(\[tests\.dcp\.test_metadata\.Key\]\)"):
        load(path, state)
    with torch.serialization.safe_globals([Key]):
        assert same(load(path, state), state)


def test_nothing_searches_for_garbage_while_a_description_is_read() -> None:
    description = Metadata({f"x{number}": BytesStorageMetadata() for number in range(20_000)})
    data = pickle.dumps(description)
    searches: list[str] = []
    note = lambda phase, _: searches.append(phase)  # noqa: E731
    gc.callbacks.append(note)
    try:
        read = _metadata.parse_metadata(data)
    finally:
        gc.callbacks.remove(note)
    assert len(read.state_dict_metadata) == 20_000
    assert len(searches) <= 4  # one may begin before, and one after
    assert gc.isenabled()
