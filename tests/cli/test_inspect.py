"""``s3torch inspect``: what is in files and checkpoints, without their tensors and without running their pickles."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

from s3torchconnector import S3CheckpointManager, S3Client, S3Manifest
from s3torchconnector._cli._inspect import describe
from s3torchconnector._cli._inspect._description import item_size
from s3torchconnector._cli._inspect._pickles import described
from s3torchconnector._cli._inspect._rebuilt import storage_of, tensors_in
from s3torchconnector._cli._location import Location
from s3torchconnector._errors import S3FormatError
from s3torchconnector.dcp import S3StorageWriter
from s3torchconnector.testing import S3Server
from tests.cli.support import at_terminal, call
from tests.servers.http_messages import ReceivedRequest
from tests.servers.proxy import Fault, RecordingProxy, StallBody

_ROWS = 1000
_LITTLE = 600 * 1024  # bytes; the files here have megabytes of tensors

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")

Expected = dict[str, tuple[str, list[int], int]]


class _Module(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.register_buffer("mean", torch.zeros(4, dtype=torch.float64))


class _Extended(torch.Tensor):
    extra: torch.Tensor


class _Evil:
    """Unpickling it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def _state() -> dict[str, torch.Tensor]:
    tensors = {
        f"{dtype}".removeprefix("torch."): torch.zeros(_ROWS, 70, dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64, torch.float8_e5m2)
    }
    return {
        **tensors,
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(1.5),
        "uint16": torch.ones(5, dtype=torch.uint16),
    }


def _expected(state: dict[str, torch.Tensor]) -> Expected:
    return {
        name: (f"{tensor.dtype}".removeprefix("torch."), list(tensor.shape), tensor.nbytes)
        for name, tensor in state.items()
    }


def _found(document: dict[str, Any]) -> Expected:
    return {each["name"]: (each["dtype"], each["shape"], each["bytes"]) for each in document["tensors"]}


def _inspect(uri: str, *options: str, status: int = 0) -> dict[str, Any]:
    done = call("inspect", uri, "--json", *options)
    assert done.returncode == status, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _refused(uri: str) -> str:
    done = call("inspect", uri)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


@pytest.fixture
def folder(s3_server: S3Server, bucket: str) -> Path:
    """The bucket's files. What is there before the first request is an object."""
    return s3_server.folder / bucket


def _received(proxy: RecordingProxy) -> int:
    return sum(each.body_bytes for each in proxy.exchanges)


# -- archives of torch.save -------------------------------------------------------------------------------------------


def test_an_archive_is_described_without_its_tensors(folder: Path, bucket: str, proxy: RecordingProxy) -> None:
    state = _state()
    loader = {"epoch": 3, "position": 1024}
    loader["self"] = loader  # type: ignore[assignment]
    groups = [{"lr": 0.1, "params": [0, 1]}]
    saved = {"model": state, "loader": loader, "optimizer": {"param_groups": groups}, "epoch": 17}
    torch.save(saved, folder / "a.pt")
    document = _inspect(f"s3://{bucket}/a.pt", f"--endpoint-url={proxy.endpoint}")
    assert _found(document) == {f"model.{name}": each for name, each in _expected(state).items()}
    assert (document["kind"], document["problems"]) == ("torch", [])
    values = {"epoch": 17, "loader.epoch": 3, "loader.position": 1024, "optimizer.param_groups.0.lr": 0.1}
    assert list(document["values"].items()) == list(values.items())  # those at the top first
    assert document["total"]["parameters"] == sum(tensor.numel() for tensor in state.values())
    assert document["total"]["bytes"] == sum(tensor.nbytes for tensor in state.values())
    assert document["total"]["by_dtype"]["uint16"] == {"tensors": 1, "parameters": 5, "bytes": 10}
    assert _received(proxy) < _LITTLE < document["size"]
    assert len(proxy.exchanges) <= 3


def test_what_torch_can_save_is_found(folder: Path, bucket: str) -> None:
    weight = nn.Parameter(torch.zeros(8, 8))
    saved = {
        "module": _Module(),
        "parameter": weight,
        "tied": weight.data,
        "list": [torch.zeros(2), (torch.zeros(3),)],
        "view": torch.zeros(1000, 10)[:2],
        "sparse": torch.eye(4).to_sparse(),
        "meta": torch.zeros(7, device="meta"),
        "optimizer": torch.optim.SGD([weight], lr=0.1).state_dict(),
    }
    torch.save(saved, folder / "a.pt")
    document = _inspect(f"s3://{bucket}/a.pt")
    found = {each["name"]: (each["dtype"], each["shape"], each["same_as"]) for each in document["tensors"]}
    assert found == {
        "module.layer.weight": ("float32", [4, 3], None),
        "module.layer.bias": ("float32", [4], None),
        "module.mean": ("float64", [4], None),
        "parameter": ("float32", [8, 8], None),
        "tied": ("float32", [8, 8], "parameter"),
        "list.0": ("float32", [2], None),
        "list.1.0": ("float32", [3], None),
        "view": ("float32", [2, 10], None),
        "sparse.1.0": ("int64", [2, 4], None),
        "sparse.1.1": ("float32", [4], None),
        "meta": ("float32", [7], None),
    }
    assert document["bytes_beyond_views"] == 998 * 10 * 4
    assert document["total"]["tensors"] == len(found) - 1


def test_tensors_in_tensors_are_found(folder: Path, bucket: str) -> None:
    both = TwoTensor(torch.zeros(3, 4), torch.ones(3, 4))
    extended = torch.zeros(5).as_subclass(_Extended)
    extended.extra = torch.zeros(2)
    torch.save({"both": nn.Parameter(both), "extended": extended}, folder / "a.pt")
    document = _inspect(f"s3://{bucket}/a.pt")
    assert [each["name"] for each in document["tensors"]] == ["both.a", "both.b", "extended", "extended.extra"]
    assert document["total"]["parameters"] == 12 + 12 + 5 + 2


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_script_archive_is_described(folder: Path, bucket: str) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(3, 4), torch.zeros(3)), folder / "a.pt")
    done = call("inspect", f"s3://{bucket}/a.pt")
    assert "TorchScript" in done.stdout.splitlines()[0]
    assert ["bias", "float32", "[4]", "16"] in [line.split() for line in done.stdout.splitlines()]


def test_no_pickle_is_run(folder: Path, bucket: str, tmp_path: Path) -> None:
    evil = _Evil(tmp_path / "made")
    torch.save({"evil": evil, "weight": torch.zeros(3)}, folder / "a.pt")
    (folder / "d").mkdir()
    (folder / "d/.metadata").write_bytes(pickle.dumps(dcp.metadata.Metadata({}, evil, {})))
    assert list(_found(_inspect(f"s3://{bucket}/a.pt"))) == ["weight"]
    assert _inspect(f"s3://{bucket}/d")["kind"] == "dcp"
    assert not evil.path.exists()
    with pytest.raises(FileNotFoundError):  # that is, it would have been run
        pickle.loads(pickle.dumps(_Evil(tmp_path / "none" / "made")))


def test_damaged_archives_are_reported(folder: Path, bucket: str) -> None:
    torch.save({"a": torch.zeros(1000), "b": torch.zeros(5)}, folder / "whole.pt")
    data = (folder / "whole.pt").read_bytes()
    (folder / "cut.pt").write_bytes(data[:3000])
    with zipfile.ZipFile(folder / "whole.pt") as whole, zipfile.ZipFile(folder / "less.pt", "w") as less:
        for name in whole.namelist():
            if not name.endswith("data/1"):
                less.writestr(name, whole.read(name)[: 2000 if name.endswith("data/0") else None])
    assert "cut.pt cannot be inspected: it begins as a zip file" in _refused(f"s3://{bucket}/cut.pt")
    assert _inspect(f"s3://{bucket}/less.pt", status=1)["problems"] == [
        "a needs 4000 bytes of data/0, which has only 2000",
        "b is in the record data/1, which is missing",
    ]


def test_a_damaged_directory_is_an_error_of_its_format(folder: Path, bucket: str) -> None:
    rng, saved, packed, damaged = random.Random(1), io.BytesIO(), io.BytesIO(), 0
    torch.save({"a": torch.zeros(3)}, saved)
    with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as deflated:
        for name in archive.namelist():
            deflated.writestr(name, archive.read(name))
    for number in range(200):
        data = bytearray((saved, packed)[number % 2].getvalue())
        for _ in range(3):
            data[-rng.randrange(1, 700)] = rng.randrange(256)
        (folder / f"{number}").write_bytes(data)
    with S3Client("us-east-1") as client:
        for number in range(200):
            try:
                describe(client, Location(bucket, f"{number}"))
            except S3FormatError:
                damaged += 1
    assert 50 < damaged < 200


@given(st.binary(min_size=1, max_size=4), st.floats(0, 1))
def test_a_damaged_pickle_is_an_error_of_its_format(other: bytes, place: float) -> None:
    saved = io.BytesIO()
    torch.save({"a": torch.zeros(3), "b": [torch.zeros(2, 2)]}, saved)
    data = zipfile.ZipFile(saved).read("archive/data.pkl")
    at = int(place * len(data))
    try:
        pickled = described(data[:at] + other + data[at + len(other) :], storage_of)
        assert len(tensors_in(pickled, {}, [])) <= 2
    except S3FormatError:
        pass


def test_a_pickle_cannot_claim_memory() -> None:
    claim = b"\x80\x02Nr\xff\xff\xff\x7f0N."  # to be remembered as object number 2**31 - 1
    assert described(claim) is None


_TWICE_OVER = b")" + b"2\x86" * 60  # a tuple that has twice the one before, sixty times
_MAKES_TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


@pytest.mark.parametrize(
    "pickled",
    [
        b"}" + _TWICE_OVER + b"K\x01s.",  # as a key
        b"}" + b")" + b"\x85" * 1_000_000 + b"K\x01s.",
        _TWICE_OVER + b"Q.",  # as what refers to a storage
        _MAKES_TENSOR + _TWICE_OVER + b"\x85R.",
        _MAKES_TENSOR + b")" + b"\x85" * 1_000_000 + b"R.",
        b"\x96" + (2**46).to_bytes(8, "little") + b".",  # room for so many bytes
        b"]" * 50_000 + b"a" * 49_999 + b".",
        b"}"
        + b"\x8b"
        + (200_000).to_bytes(4, "little")
        + b"\x7f" * 200_000
        + b"K\x01s.",  # a number, too long to print
    ],
    ids=["wide key", "deep key", "wide id", "wide tensor", "deep tensor", "claim", "deep list", "number"],
)
def test_a_pickle_of_few_bytes_takes_little_time(pickled: bytes) -> None:
    tensors: list[Any] = []
    with contextlib.suppress(S3FormatError):
        tensors = tensors_in(described(b"\x80\x05" + pickled, storage_of), {}, [])
    assert tensors == []


def test_the_names_of_nested_tensors_stay_short() -> None:
    key = b"X" + (100_000).to_bytes(4, "little") + b"k" * 100_000 + b"q\x000"
    tensor = b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n(ctorch\nfloat32\n(K\x04t\x89tR"
    pickled = b"\x80\x02" + key + b"}h\x00" * 900 + tensor + b"s" * 900 + b"."
    [found] = tensors_in(described(pickled), {}, [])
    assert (len(found.name), found.shape) == (1003, (4,))


def test_a_shape_is_a_number_of_elements_that_can_be_said() -> None:
    for sizes in (b"(" + b"K\x02" * 65 + b"t", b"(\x8a\x09" + b"\x00" * 8 + b"\x01t"):
        pickled = b"\x80\x02ctorch._utils\n_rebuild_meta_tensor_no_storage\n(ctorch\nfloat32\n" + sizes + b"\x89tR."
        with pytest.raises(S3FormatError, match="no tensor"):
            tensors_in(described(pickled), {}, [])


def test_a_compressed_pickle_cannot_grow_without_limit(folder: Path, bucket: str) -> None:
    with zipfile.ZipFile(folder / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"(" + b"]" * (17 * 1024 * 1024) + b"t.")
    done = call("inspect", f"s3://{bucket}/bomb.pt")
    assert (done.returncode, done.stdout) == (1, "")
    assert "too many for names and shapes" in done.stderr


# -- other files ------------------------------------------------------------------------------------------------------


def test_a_safetensors_file_is_described_without_its_tensors(folder: Path, bucket: str, proxy: RecordingProxy) -> None:
    state = {name: tensor for name, tensor in _state().items() if name != "scalar"}
    save_file(state, folder / "model", {"format": "pt"})
    document = _inspect(f"s3://{bucket}/model", f"--endpoint-url={proxy.endpoint}")
    assert _found(document) == _expected(state)
    assert (document["kind"], document["metadata"]) == ("safetensors", {"format": "pt"})
    assert _received(proxy) < _LITTLE < document["size"]


def test_a_manifest_is_described_by_its_header(folder: Path, bucket: str) -> None:
    for name in "abc":
        (folder / name).write_bytes(b"123")
    uri = f"s3://{bucket}/m"
    manifest = S3Manifest.from_prefix(f"s3://{bucket}/", region="us-east-1")
    manifest.save(uri)
    document = _inspect(uri)
    assert (document["kind"], document["samples"], document["fingerprint"]) == ("manifest", 3, manifest.fingerprint)


def test_a_file_without_tensors_is_reported(folder: Path, bucket: str) -> None:
    torch.save({"a": torch.zeros(3)}, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    with tarfile.open(folder / "a.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("sample.jpg"))
    with tarfile.open(folder / "old.pt", "w") as tar:
        tar.addfile(tarfile.TarInfo("sys_info"))
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("readme", "text")
    (folder / "model.safetensors").write_bytes(b"\x89PNG and more")
    (folder / "a.pt").write_bytes(b"")
    (folder / "p.pt").write_bytes(pickle.dumps({"a": 1}))
    (folder / "config.json").write_text("{}")
    for name, text in {
        "legacy.pt": "before PyTorch 1.6",
        "old.pt": "before PyTorch 0.2",
        "a.tar": "it is a tar archive",
        "a.zip": "but not of torch.save",
        "model.safetensors": "begins with b'\\x89PNG and more'",
        "a.pt": "it has 0 bytes",
        "p.pt": "it is a pickle, but not",
        "config.json": "begins with b'{}'",
        "none": "there is nothing at",
    }.items():
        assert text in _refused(f"s3://{bucket}/{name}"), name


def test_names_cannot_command_a_terminal(folder: Path, bucket: str) -> None:
    torch.save({"\x1b[31m\nred": torch.zeros(3)}, folder / "a.pt")
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("\x1b[31m", "text")
    done = call("inspect", f"s3://{bucket}/a.pt")
    assert "\x1b" not in done.stdout
    assert ["\\x1b[31m\\nred", "float32", "[3]", "12"] in [line.split() for line in done.stdout.splitlines()]
    error = _refused(f"s3://{bucket}/a.zip")
    assert "\\x1b[31m" in error
    assert "\x1b" not in error


def test_at_a_terminal_long_names_are_folded_not_cut(folder: Path, bucket: str) -> None:
    name = "".join(f"{number:03}" for number in range(60))
    torch.save({name: torch.zeros(3)}, folder / "a.pt")
    with at_terminal("inspect", f"s3://{bucket}/a.pt") as terminal:
        assert terminal.wait() == 0
    rows = terminal.seen.splitlines()
    assert "".join(row.split()[0] for row in rows if row[:1].isdigit()) == name
    assert any(row.split()[1:] == ["float32", "[3]", "12"] for row in rows)


def test_another_version_is_not_mixed_in(folder: Path, bucket: str, proxy: RecordingProxy) -> None:
    torch.save(_state(), folder / "a.pt")

    def overwrite(request: Any) -> Fault | None:
        if len(proxy.of("GET")) == 2:
            (folder / "a.pt").write_bytes(b"another")
        return None

    proxy.misbehave = overwrite
    done = call("inspect", f"s3://{bucket}/a.pt", f"--endpoint-url={proxy.endpoint}")
    assert (done.returncode, done.stdout) == (1, "")
    assert "changed while it was being read" in done.stderr


# -- folders ----------------------------------------------------------------------------------------------------------


def _model(folder: Path) -> dict[str, torch.Tensor]:
    """A model of Hugging Face's in two files."""
    folder.mkdir()
    state = _state()
    names = list(state)
    places = {name: f"model-0000{1 + (i > 3)}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(places.values()):
        save_file({name: state[name] for name in names if places[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "torch_dtype": "bfloat16"}))
    (folder / "training_args.bin").write_bytes(b"no tensors")
    return state


def test_a_model_of_several_files_is_described(folder: Path, bucket: str, proxy: RecordingProxy) -> None:
    state = _model(folder / "hf")
    document = _inspect(f"s3://{bucket}/hf", f"--endpoint-url={proxy.endpoint}")
    assert _found(document) == _expected(state)
    assert (document["kind"], document["files"], document["model_type"]) == ("folder", 2, "llama")
    assert _received(proxy) < _LITTLE < document["size"]
    assert _inspect(f"s3://{bucket}/hf/model.safetensors.index.json") == document


def test_a_model_that_is_not_as_its_index_says(folder: Path, bucket: str) -> None:
    _model(folder / "hf")
    index = json.loads((folder / "hf/model.safetensors.index.json").read_text())
    del index["weight_map"]["empty"]
    index["weight_map"] |= {"more": "model-00003-of-00003.safetensors", "int": "model-00001-of-00002.safetensors"}
    (folder / "hf/model.safetensors.index.json").write_text(json.dumps(index))
    problems = _inspect(f"s3://{bucket}/hf/", status=1)["problems"]
    assert len(problems) == 3
    assert "model-00003-of-00003.safetensors" in problems[0]
    assert problems[1:] == [
        "int is not in model-00001-of-00002.safetensors, where the index says it is",
        "empty, in model-00002-of-00002.safetensors, is not in the index",
    ]


@pytest.mark.parametrize("file", ["../x", "", "/etc/x", "a//b", "./x", "a/../../x"])
def test_an_index_that_names_no_file_of_its_folder_is_damaged(folder: Path, bucket: str, file: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": file}}))
    for uri in (f"s3://{bucket}/", f"s3://{bucket}/model.safetensors.index.json"):
        done = call("inspect", uri)
        assert done.returncode == 1
        assert f"s3://{bucket}/model.safetensors.index.json cannot be inspected" in done.stderr
        assert f"the tensor w is in the file {file!r}" in done.stderr


def test_ctrl_c_does_not_wait_for_files_that_do_not_come(folder: Path, bucket: str, proxy: RecordingProxy) -> None:
    _model(folder / "hf")
    release = threading.Event()
    asked: set[str] = set()

    def misbehave(request: ReceivedRequest) -> Fault | None:
        if not request.path.endswith(".safetensors"):
            return None
        asked.add(request.path)
        return StallBody(release)

    proxy.misbehave = misbehave
    command = "inspect", f"s3://{bucket}/hf/model.safetensors.index.json", f"--endpoint-url={proxy.endpoint}"
    try:
        with at_terminal(*command) as terminal:
            terminal.until(lambda: len(asked) == 2)
            began = time.monotonic()
            terminal.type("\x03")
            assert terminal.wait() == 130
            assert time.monotonic() - began < 9  # less than the time in which a response has to begin
    finally:
        release.set()


def test_a_distributed_checkpoint_is_described(bucket: str, proxy: RecordingProxy) -> None:
    state = _state()
    writer = S3StorageWriter("us-east-1", f"s3://{bucket}/step", thread_count=2)
    dcp.save({"model": state, "other": {"rate": 0.5}}, storage_writer=writer, no_dist=True)
    document = _inspect(f"s3://{bucket}/step", f"--endpoint-url={proxy.endpoint}")
    assert _found(document) == {f"model.{name}": each for name, each in _expected(state).items()}
    assert (document["kind"], document["files"], document["other_values"]) == ("dcp", 2, ["other.rate"])
    assert _received(proxy) < _LITTLE < document["size"]
    assert _inspect(f"s3://{bucket}/step/.metadata") == document


def test_missing_files_of_a_checkpoint_are_reported(folder: Path, bucket: str) -> None:
    step = folder / "step-0000000001"  # as S3CheckpointManager calls it, but not of it
    step.mkdir()
    dcp.save({"a": torch.zeros(1000), "b": torch.zeros(999)}, checkpoint_id=step, no_dist=True)
    [file] = step.glob("*.distcp")
    file.write_bytes(file.read_bytes()[:100])
    [problem] = _inspect(f"s3://{bucket}/{step.name}", status=1)["problems"]
    assert problem.startswith(f"its file {file.name} has 100 bytes, fewer than the ")


def test_numbered_checkpoints_are_listed_and_described(bucket: str) -> None:
    manager = S3CheckpointManager(f"s3://{bucket}/run", "us-east-1")
    state = {"weight": torch.zeros(30, 4)}
    for step in (1, 2):
        manager.save(step, state)
    manager.close()
    document = _inspect(f"s3://{bucket}/run")
    assert [(each["step"], each["state"], each["latest"]) for each in document["steps"]] == [
        (1, "committed", False),
        (2, "committed", True),
    ]
    for name in ("step-0000000002", "step-0000000002/", "step-0000000002.json"):
        described_step = _inspect(f"s3://{bucket}/run/{name}")
        assert (described_step["step"], _found(described_step)) == (2, _expected(state))
    assert "no committed checkpoint of step 3" in _refused(f"s3://{bucket}/run/step-0000000003")


# -- types, imports ---------------------------------------------------------------------------------------------------


def test_sizes_of_types_match_torch() -> None:
    types = {each for each in vars(torch).values() if isinstance(each, torch.dtype)}
    assert len(types) > 20
    for dtype in types:
        assert item_size(f"{dtype}".removeprefix("torch.")) == dtype.itemsize, dtype
    with pytest.raises(ValueError, match="there is no type 'float'"):
        item_size("float")


_WITHOUT_TORCH = """
import sys
from s3torchconnector._cli._app import make_app
step, run = sys.argv[1:]
for arguments in (["inspect", step], ["inspect", run], ["checkpoints", "list", run], ["checkpoints", "verify", run]):
    try:
        make_app()(arguments, prog_name="s3torch")
    except SystemExit as end:
        assert not end.code, arguments
assert "torch" not in sys.modules
"""


def test_torch_is_not_imported(bucket: str) -> None:
    manager = S3CheckpointManager(f"s3://{bucket}/run", "us-east-1")
    manager.save(1, {"weight": torch.zeros(3)})
    manager.close()
    uris = (f"s3://{bucket}/run/step-0000000001", f"s3://{bucket}/run")
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, *uris], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
