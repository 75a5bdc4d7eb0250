"""Saving and loading in one process: what is stored comes back, in few requests."""

from __future__ import annotations

import itertools
import pickle
import threading
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint._extension import StreamTransformExtension
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import (
    DefaultLoadPlanner,
    DefaultSavePlanner,
    _EmptyStateDictLoadPlanner,
)
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save, torch_save_to_dcp
from torch.distributed.checkpoint.planner import ReadItem, WriteItem
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict
from torch.serialization import get_crc32_options

from s3torchconnector import S3ClientConfig, S3Exception, S3ReaderConstructor
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer.reading._fetch_group import Fetch, FetchGroup
from s3torchconnector.dcp import HexPrefixStrategy, S3FileSystem, S3StorageReader, S3StorageWriter
from s3torchconnector.testing import S3Server
from tests.dcp.support import CONFIG, PART, REGION, blank, keys_of, load, mixed_state, reader_of, same, writer_of
from tests.servers.proxy import CutBody, Drop, RecordingProxy, first


@pytest.mark.parametrize(
    "options",
    [{}, {"thread_count": 3}, {"single_file_per_rank": False}, {"prefix_strategy": HexPrefixStrategy(4)}],
    ids=["default", "three threads", "a file for each item", "hexadecimal prefix"],
)
def test_a_saved_state_is_loaded(bucket: str, options: dict[str, Any]) -> None:
    state = mixed_state()
    metadata = dcp.save(state, storage_writer=writer_of(f"s3://{bucket}/here", **options))
    assert same(load(f"s3://{bucket}/here", state), state)
    named = {info.relative_path for info in metadata.storage_data.values()}
    assert {f"here/{name}" for name in named} | {"here/.metadata"} == set(keys_of(bucket))
    if options.get("thread_count"):
        assert len(named) == 3


@pytest.mark.parametrize("budget", [PART, 2**30])
def test_targets_of_another_type_or_layout_are_filled(bucket: str, budget: int) -> None:
    path = f"s3://{bucket}"
    stored = {"a": torch.randn(1200, 1300), "b": torch.randn(300, 400), "c": torch.randn(300, 400)}
    dcp.save(stored, storage_writer=writer_of(path))
    state = {
        "a": torch.zeros(1200, 1300, dtype=torch.float64),
        "b": torch.zeros(400, 300).t(),
        "c": torch.zeros(600, 800)[::2, ::2],
    }
    dcp.load(
        state, storage_reader=reader_of(path, s3client_config=S3ClientConfig(part_size=PART, memory_budget=budget))
    )
    assert all(torch.equal(state[name].to(stored[name].dtype), stored[name]) for name in stored)


def test_a_tensor_of_another_size_is_an_error(bucket: str) -> None:
    dcp.save({"a": torch.ones(3, 4)}, storage_writer=writer_of(f"s3://{bucket}"))
    with pytest.raises(CheckpointException, match="Size mismatch"):
        dcp.load({"a": torch.zeros(4, 4)}, storage_reader=reader_of(f"s3://{bucket}"))


def test_checkpoint_id_names_another_path(bucket: str) -> None:
    writer, reader = writer_of(f"s3://{bucket}/first"), reader_of(f"s3://{bucket}/first")
    for step, name in enumerate(["first", "second"]):
        dcp.save({"a": torch.full((3,), step)}, storage_writer=writer, checkpoint_id=f"s3://{bucket}/{name}")
    assert str(writer.checkpoint_id) == f"s3://{bucket}/second"
    for step, name in enumerate(["first", "second"]):
        state = {"a": torch.zeros(3, dtype=torch.int64)}
        dcp.load(state, storage_reader=reader, checkpoint_id=Path(f"s3://{bucket}") / name)
        assert state["a"].tolist() == [step] * 3


def test_async_save_takes_a_copy(bucket: str) -> None:
    state = {"a": torch.ones(100, 100)}
    saving = dcp.async_save(state, storage_writer=writer_of(f"s3://{bucket}"))
    state["a"].zero_()
    saving.result()
    assert same(load(f"s3://{bucket}", state), {"a": torch.ones(100, 100)})


def test_models_and_optimizers(bucket: str) -> None:
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    def trained(seed: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(300, 200), torch.nn.BatchNorm1d(200), torch.nn.Linear(200, 3))
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.randn(8, 300)).sum().backward()
        optimizer.step()
        return model, optimizer

    model, optimizer = trained(0)
    saved = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
    dcp.save(saved, storage_writer=writer_of(f"s3://{bucket}"))
    other, its_optimizer = trained(1)
    state = dict(zip(("model", "optimizer"), get_state_dict(other, its_optimizer), strict=True))
    dcp.load(state, storage_reader=reader_of(f"s3://{bucket}"))
    set_state_dict(other, its_optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    assert same(dict(other.state_dict()), dict(model.state_dict()))
    assert same(its_optimizer.state_dict()["state"], optimizer.state_dict()["state"])


class _Zipped(StreamTransformExtension):
    """An extension that compresses what it writes."""

    @staticmethod
    def registry_name() -> str:
        return "tests.zipped"

    @staticmethod
    def from_descriptor(version: str) -> _Zipped:
        return _Zipped()

    def get_descriptor(self) -> str:
        return "tests.zipped/1"

    def transform_to(self, output: IO[bytes]) -> IO[bytes]:
        return _ZippingStream(output)  # type: ignore[return-value]

    def transform_from(self, input: IO[bytes]) -> IO[bytes]:
        import io

        return io.BytesIO(zlib.decompress(input.read()))


class _ZippingStream:
    def __init__(self, output: IO[bytes]) -> None:
        self._output = output
        self._zipping = zlib.compressobj(1)

    def write(self, data: bytes) -> int:
        self._output.write(self._zipping.compress(data))
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._output.write(self._zipping.flush())
        self._output.close()


def test_items_that_an_extension_encodes(bucket: str) -> None:
    from torch.distributed.checkpoint._extension import ExtensionRegistry

    state = {"a": torch.zeros(2000, 1000), "b": torch.ones(3), "c": [1, 2]}
    dcp.save(state, storage_writer=writer_of(f"s3://{bucket}", _extensions=[_Zipped()]))
    registry = ExtensionRegistry()
    registry.extensions = {_Zipped.registry_name(): _Zipped}
    assert same(load(f"s3://{bucket}", state, _extension_registry=registry), state)


def test_safetensors_are_passed_on_to_torch(bucket: str, s3_server: S3Server) -> None:
    from safetensors.torch import load_file
    from torch.distributed.checkpoint.filesystem import SerializationFormat

    state = {"a": torch.randn(30, 40), "b": torch.ones(3)}
    format_ = SerializationFormat.SAFETENSORS
    dcp.save(state, storage_writer=writer_of(f"s3://{bucket}", serialization_format=format_))
    [file] = (s3_server.folder / bucket).glob("__0_*")
    assert same(load_file(file), state)


def test_files_of_the_file_system_and_of_s3_are_the_same(bucket: str, tmp_path: Path) -> None:
    state = mixed_state()
    dcp.save(state, storage_writer=FileSystemWriter(tmp_path / "local"))
    file_system = S3FileSystem(REGION)

    def upload(folder: Path, name: str) -> None:
        for file in folder.iterdir():
            with file_system.create_stream(f"s3://{bucket}/{name}/{file.name}", "wb") as stream:
                stream.write(file.read_bytes())

    upload(tmp_path / "local", "up")
    assert same(load(f"s3://{bucket}/up", state), state)

    dcp.save(state, storage_writer=writer_of(f"s3://{bucket}/down"))
    (tmp_path / "down").mkdir()
    for uri in file_system.ls(f"s3://{bucket}/down"):
        with file_system.create_stream(uri, "rb") as stream:
            (tmp_path / "down" / uri.rpartition("/")[2]).write_bytes(stream.read())
    read = blank(state)
    dcp.load(read, storage_reader=FileSystemReader(tmp_path / "down"))
    assert same(read, state)
    dcp_to_torch_save(tmp_path / "down", tmp_path / "state.pt")
    assert same(torch.load(tmp_path / "state.pt", weights_only=False), state)
    torch_save_to_dcp(tmp_path / "state.pt", tmp_path / "again")
    upload(tmp_path / "again", "again")
    assert same(load(f"s3://{bucket}/again", state), state)


class _Watching(DefaultSavePlanner):
    """Checks, while a file is written, that ``torch.save`` of another thread computes checksums."""

    def __init__(self) -> None:
        super().__init__()
        self.others_sum: list[bool] = []

    def resolve_data(self, write_item: WriteItem) -> Any:
        other = threading.Thread(target=lambda: self.others_sum.append(get_crc32_options()))
        other.start()
        other.join()
        return super().resolve_data(write_item)


def test_tensors_are_summed_by_the_upload_alone(bucket: str) -> None:
    state = {"it": torch.arange(100_000)}
    planner = _Watching()
    dcp.save(state, storage_writer=writer_of(f"s3://{bucket}/once"), planner=planner)
    [key] = keys_of(bucket, "once/__")
    with S3FileSystem(REGION).create_stream(f"s3://{bucket}/{key}", "rb") as stream:
        records = zipfile.ZipFile(stream).infolist()
    assert {record.CRC for record in records} == {0}
    assert planner.others_sum == [True]
    assert get_crc32_options()
    assert same(load(f"s3://{bucket}/once", state), state)


def test_a_checkpoint_as_a_plain_state_dict(bucket: str) -> None:
    state = mixed_state()
    dcp.save(state, storage_writer=writer_of(f"s3://{bucket}"))
    found: dict[str, Any] = {}
    _load_state_dict(
        found, storage_reader=reader_of(f"s3://{bucket}"), planner=_EmptyStateDictLoadPlanner(), no_dist=True
    )
    assert same(found, state)


# -- requests ---------------------------------------------------------------------------------------------------------


def through(proxy: RecordingProxy, path: str, **options: Any) -> S3StorageReader:
    return reader_of(path, endpoint=proxy.endpoint, **options)


def test_small_tensors_share_requests(bucket: str, proxy: RecordingProxy) -> None:
    state = {str(number): torch.full((40, 10), number) for number in range(600)}
    dcp.save(state, storage_writer=writer_of(f"s3://{bucket}"))
    read = blank(state)
    dcp.load(read, storage_reader=through(proxy, f"s3://{bucket}"))
    assert same(read, state)
    assert len(proxy.exchanges) == 2  # .metadata, and the file


def test_nothing_is_fetched_twice_and_large_tensors_are_split(bucket: str, proxy: RecordingProxy) -> None:
    state = {"a": torch.randn(3000, 2000), "b": torch.randn(1000, 1000), "c": torch.randn(30)}
    dcp.save(state, storage_writer=writer_of(f"s3://{bucket}"))
    read = blank(state)
    dcp.load(read, storage_reader=through(proxy, f"s3://{bucket}"))
    assert same(read, state)
    [file] = (key for key in keys_of(bucket) if key != ".metadata")
    gets = proxy.of("GET", f"/{bucket}/{file}")
    with S3Client(REGION) as client:
        size = client.head_object(bucket, file).size
    assert sum(get.body_bytes for get in gets) == size
    assert size // PART <= len(gets) <= size // PART + 2
    assert len(proxy.of("GET")) == len(gets) + 1


def test_a_tenth_of_the_tensors_costs_a_tenth(bucket: str, proxy: RecordingProxy) -> None:
    state = {str(number): torch.full((100, 1000), number, dtype=torch.float32) for number in range(100)}
    dcp.save(state, storage_writer=writer_of(f"s3://{bucket}"))
    part = {name: torch.zeros(100, 1000) for name in state if name.endswith("7")}
    dcp.load(part, storage_reader=through(proxy, f"s3://{bucket}"))
    assert all(torch.equal(part[name], state[name]) for name in part)
    files = [get for get in proxy.of("GET") if not get.path.endswith(".metadata")]
    assert sum(get.body_bytes for get in files) <= 1.02 * sum(tensor.nbytes for tensor in part.values())


class _Telling(DefaultLoadPlanner):
    """Records when the target of a tensor is looked up."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self._events = events

    def resolve_tensor(self, read_item: ReadItem) -> torch.Tensor:
        self._events.append("look")
        return super().resolve_tensor(read_item)


def test_targets_are_found_before_the_requests_are_sent(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For up to some hundred items: while others receive, each look-up waits for the interpreter lock."""
    state = {f"{number:03}": torch.full((10, 2000), number, dtype=torch.float32) for number in range(600)}
    dcp.save(state, storage_writer=writer_of(f"s3://{bucket}"))
    events: list[str] = []
    start = FetchGroup.submit

    def send(group: FetchGroup, fetch: Fetch) -> None:
        events.append("send")
        start(group, fetch)

    monkeypatch.setattr(FetchGroup, "submit", send)
    read = blank(state)
    dcp.load(read, storage_reader=reader_of(f"s3://{bucket}"), planner=_Telling(events))
    assert same(read, state)
    runs = [(event, len(list(group))) for event, group in itertools.groupby(events)]
    assert [event for event, _ in runs] == ["look", "send", "look", "send"]
    assert 512 <= runs[0][1] < 600


def test_gaps_are_fetched_up_to_the_size_given(bucket: str, proxy: RecordingProxy) -> None:
    state = {str(number): torch.full((100, 300), number) for number in range(10)}  # 240 kB each
    dcp.save(state, storage_writer=writer_of(f"s3://{bucket}"))
    counts = []
    for gap in (0, 300_000):
        part = {name: torch.zeros(100, 300, dtype=torch.int64) for name in ("1", "3", "5")}
        constructor = S3ReaderConstructor.dcp_optimized(gap)
        before = len(proxy.exchanges)
        dcp.load(part, storage_reader=through(proxy, f"s3://{bucket}", reader_constructor=constructor))
        assert all(torch.equal(part[name], state[name]) for name in part)
        counts.append(len(proxy.exchanges) - before)
    assert counts == [1 + 3, 1 + 1]


def test_a_load_resumes_a_broken_connection(bucket: str, proxy: RecordingProxy) -> None:
    state = mixed_state()
    dcp.save(state, storage_writer=writer_of(f"s3://{bucket}"))
    ranged = lambda request: request.range is not None and ".metadata" not in request.path  # noqa: E731
    for after in (100, 5000, 70_000, 1_000_000):
        proxy.misbehave = first(2, CutBody(after), ranged)
        read = blank(state)
        dcp.load(read, storage_reader=through(proxy, f"s3://{bucket}", s3client_config=S3ClientConfig(part_size=PART)))
        assert same(read, state)


def test_large_tensors_are_received_directly_into_their_memory(bucket: str, proxy: RecordingProxy) -> None:
    """Visible after a load that fails at the end: the bytes received are in the tensor."""
    dcp.save({"a": torch.ones(3000, 2000)}, storage_writer=writer_of(f"s3://{bucket}"))
    proxy.misbehave = lambda request: None if (request.range or "bytes=0-").startswith("bytes=0-") else Drop()
    state = {"a": torch.zeros(3000, 2000)}
    with pytest.raises(CheckpointException, match="S3ConnectionError"):
        dcp.load(state, storage_reader=through(proxy, f"s3://{bucket}"))
    assert state["a"][0, 0] == 1
    assert state["a"][-1, -1] == 0


def test_buffers_stay_within_the_budget(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve items of 4 MB that must be converted, with 10 MiB for them."""
    limit = 2 * PART
    state = {str(number): torch.full((1000, 1000), float(number)) for number in range(12)}
    dcp.save(state, storage_writer=writer_of(f"s3://{bucket}"))
    reader = reader_of(f"s3://{bucket}", s3client_config=S3ClientConfig(part_size=PART, memory_budget=limit))
    budget = reader.fs._client._runtime().budget
    taken: list[int] = []
    for name in ("take", "try_take"):
        original = getattr(budget, name)
        monkeypatch.setattr(
            budget, name, lambda size, call=original, **how: (call(size, **how), taken.append(budget.taken))[0]
        )
    read = {name: torch.zeros(1000, 1000, dtype=torch.float64) for name in state}
    dcp.load(read, storage_reader=reader)
    assert all(torch.equal(read[name].float(), state[name]) for name in state)
    assert 4_000_000 < max(taken) <= limit
    assert budget.taken == 0


# -- what cannot be loaded ---------------------------------------------------------------------------------------------


def test_a_path_without_a_checkpoint(bucket: str) -> None:
    with pytest.raises(CheckpointException, match=r"The key does not exist|NoSuchKey"):
        dcp.load({"a": torch.zeros(3)}, storage_reader=reader_of(f"s3://{bucket}/nothing"))


def test_a_file_that_is_shorter_than_its_metadata_says(bucket: str) -> None:
    dcp.save({"a": torch.ones(1000, 1000)}, storage_writer=writer_of(f"s3://{bucket}/x"))
    [file] = (key for key in keys_of(bucket) if not key.endswith(".metadata"))
    with S3FileSystem(REGION).create_stream(f"s3://{bucket}/{file}", "wb") as stream:
        stream.write(bytes(1000))
    reader = reader_of(f"s3://{bucket}/x")
    with pytest.raises(CheckpointException, match=r"has 1000 bytes, and a stored item ends at .*is damaged"):
        dcp.load({"a": torch.zeros(1000, 1000)}, storage_reader=reader)
    assert reader.fs._client._runtime().budget.taken == 0


@pytest.mark.parametrize("make", [S3StorageWriter, S3StorageReader])
def test_paths_are_uris_of_s3(make: Any) -> None:
    with pytest.raises(ValueError, match="Only s3:// URIs are supported"):
        make(REGION, "/tmp/somewhere")
    assert make.validate_checkpoint_id("s3://bucket/prefix")
    assert not make.validate_checkpoint_id("/tmp/somewhere")


def test_they_are_torchs_and_pickle(bucket: str) -> None:
    writer, reader = writer_of(f"s3://{bucket}"), reader_of(f"s3://{bucket}")
    assert isinstance(writer, FileSystemWriter)
    assert isinstance(reader, FileSystemReader)
    dcp.save({"a": torch.ones(3)}, storage_writer=pickle.loads(pickle.dumps(writer)))
    state = {"a": torch.zeros(3)}
    dcp.load(state, storage_reader=pickle.loads(pickle.dumps(reader)))
    assert state["a"].tolist() == [1, 1, 1]


# -- the file system --------------------------------------------------------------------------------------------------


def test_file_system(bucket: str) -> None:
    files = S3FileSystem(REGION, s3client_config=CONFIG)
    path = files.concat_path(Path(f"s3://{bucket}/a/"), "b.txt")
    assert path == f"s3://{bucket}/a/b.txt"
    with files.create_stream(path, "wb") as stream:
        stream.write(b"content")
    assert files.exists(path)
    files.rename(path, f"s3://{bucket}/c")
    assert not files.exists(path)
    with files.create_stream(f"s3://{bucket}/c", "rb") as stream:
        assert stream.read() == b"content"
    assert files.ls(f"s3://{bucket}") == [f"s3://{bucket}/c"]
    files.rm_file(f"s3://{bucket}/c")
    files.rm_file(f"s3://{bucket}/c")
    assert not files.exists(f"s3://{bucket}/c")
    with pytest.raises(ValueError, match="mode='ab'"), files.create_stream(path, "ab"):
        pass


def test_a_stream_left_by_an_exception_stores_nothing(bucket: str) -> None:
    files = S3FileSystem(REGION, S3Client(REGION))
    context = files.create_stream(f"s3://{bucket}/a", "wb")
    context.__enter__().write(b"half")
    assert not context.__exit__(KeyError, KeyError(), None)
    assert not files.exists(f"s3://{bucket}/a")
    with pytest.raises(S3Exception):
        S3FileSystem(REGION, s3client_config=CONFIG, endpoint="http://127.0.0.1:1").exists(f"s3://{bucket}/a")
