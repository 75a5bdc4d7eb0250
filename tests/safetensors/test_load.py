"""The requests of a load: one for the header, then the wanted bytes and no others, adjacent ones in one request."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector import S3Checkpoint
from s3torchconnector._config import MIB
from s3torchconnector._errors import S3FormatError, S3ObjectChangedError
from s3torchconnector._safetensors._load import HEAD_BYTES, MAX_GAP
from s3torchconnector.testing import S3Server
from tests.safetensors.support import checkpoint_of, file_of, same, tensor_of
from tests.servers.proxy import CutBody, RecordingProxy, first

PART = 5 * MIB
_HEAD = f"bytes=0-{HEAD_BYTES - 1}"


@pytest.fixture
def checkpoint(proxy: RecordingProxy) -> S3Checkpoint:
    return checkpoint_of(proxy.endpoint)


def _store(checkpoint: S3Checkpoint, uri: str, data: bytes) -> None:
    with checkpoint.writer(uri) as writer:
        writer.write(data)


def _received(proxy: RecordingProxy) -> int:
    return sum(each.body_bytes for each in proxy.of("GET"))


def test_a_small_file_is_one_request(checkpoint: S3Checkpoint, proxy: RecordingProxy, bucket: str) -> None:
    tensors = {f"layer.{i}": tensor_of(torch.float32, 10, 10, seed=i) for i in range(100)}
    checkpoint.save_safetensors(tensors, f"s3://{bucket}/key")
    assert same(checkpoint.load_safetensors(f"s3://{bucket}/key"), tensors)
    assert [each.range for each in proxy.of("GET")] == [_HEAD]
    assert proxy.of("HEAD") == []


def test_tensors_side_by_side_share_requests(checkpoint: S3Checkpoint, proxy: RecordingProxy, bucket: str) -> None:
    tensors = {f"layer.{i:04}": tensor_of(torch.uint8, 1 + i % 7 * 3000, seed=i) for i in range(1300)}
    tensors["large"] = tensor_of(torch.bfloat16, 3 * PART)
    checkpoint.save_safetensors(tensors, f"s3://{bucket}/key")
    assert same(checkpoint.load_safetensors(f"s3://{bucket}/key"), tensors)
    size = checkpoint.reader(f"s3://{bucket}/key").seek(0, 2)
    wanted = [each for each in proxy.of("GET") if each.range != "bytes=-262144"]  # the seek's
    assert len(wanted) == 1 + -(-(size - HEAD_BYTES) // PART)
    assert sum(each.body_bytes for each in wanted) == size


def test_a_header_longer_than_the_first_request_takes_a_second(
    checkpoint: S3Checkpoint, proxy: RecordingProxy, bucket: str
) -> None:
    tensors = {f"{'long name ' * 100}{i}": tensor_of(torch.int16, 3, seed=i) for i in range(1000)}
    checkpoint.save_safetensors(tensors, f"s3://{bucket}/key")
    name = next(iter(tensors))
    assert same(checkpoint.load_safetensors(f"s3://{bucket}/key", names=[name]), {name: tensors[name]})
    assert len(proxy.of("GET")) == 3
    assert _received(proxy) < 1.5 * MIB


def test_named_tensors_are_read_without_the_rest(checkpoint: S3Checkpoint, proxy: RecordingProxy, bucket: str) -> None:
    tensors = {f"{i:02}": tensor_of(torch.float16, MIB, seed=i) for i in range(12)}  # 2 MiB each, in this order
    checkpoint.save_safetensors(tensors, f"s3://{bucket}/key")
    wanted = ["09", "03", "04"]
    loaded = checkpoint.load_safetensors(f"s3://{bucket}/key", names=wanted)
    assert list(loaded) == wanted
    assert same(loaded, {name: tensors[name] for name in wanted})
    assert len(proxy.of("GET")) == 3  # the header, 03 with 04, 09
    assert _received(proxy) == HEAD_BYTES + 3 * 2 * MIB


def test_small_gaps_are_received_and_discarded(checkpoint: S3Checkpoint, proxy: RecordingProxy, bucket: str) -> None:
    sizes = {"0": MIB, "1": MAX_GAP, "2": 10, "3": MAX_GAP + 1, "4": 10}
    tensors = {name: tensor_of(torch.uint8, size, seed=size) for name, size in sizes.items()}
    checkpoint.save_safetensors(tensors, f"s3://{bucket}/key")
    loaded = checkpoint.load_safetensors(f"s3://{bucket}/key", names=["0", "2", "4"])
    assert same(loaded, {name: tensors[name] for name in ("0", "2", "4")})
    assert len(proxy.of("GET")) == 3


def test_rows_are_read_without_the_others(checkpoint: S3Checkpoint, proxy: RecordingProxy, bucket: str) -> None:
    table = tensor_of(torch.float32, 4096, 1024)  # 16 MiB
    checkpoint.save_safetensors({"table": table}, f"s3://{bucket}/key")
    loaded = checkpoint.load_safetensors(f"s3://{bucket}/key", names={"table": slice(2000, 2100)})
    assert torch.equal(loaded["table"].view(torch.int32), table[2000:2100].view(torch.int32))
    assert [each.body_bytes for each in proxy.of("GET")] == [HEAD_BYTES, 100 * 4096]


def test_columns_of_large_rows_are_read_without_the_others(
    checkpoint: S3Checkpoint, proxy: RecordingProxy, bucket: str
) -> None:
    table = tensor_of(torch.uint8, 4, 3 * MIB)
    checkpoint.save_safetensors({"table": table}, f"s3://{bucket}/key")
    index = (slice(1, 4), slice(MIB, MIB + 1000))
    loaded = checkpoint.load_safetensors(f"s3://{bucket}/key", names={"table": index})
    assert torch.equal(loaded["table"], table[index])
    assert sorted(each.body_bytes for each in proxy.of("GET")) == [1000, 1000, 1000, HEAD_BYTES]


_bounds = st.none() | st.integers(-7, 7)
_slices = st.builds(slice, _bounds, _bounds, st.none() | st.integers(1, 3))


@settings(max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.lists(_slices, max_size=3), st.booleans())
def test_slices_match_torch(
    checkpoint: S3Checkpoint,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    shape: list[int],
    slices: list[slice],
    large: bool,
) -> None:
    # Thresholds at which small tensors are treated as large ones.
    monkeypatch.setattr("s3torchconnector._safetensors._selection._LARGE_ROW", 8 if large else MIB)
    monkeypatch.setattr("s3torchconnector._safetensors._selection._STAGE", 16)
    monkeypatch.setattr("s3torchconnector._safetensors._load.HEAD_BYTES", 8)
    tensor = tensor_of(torch.int16, *shape)
    index = tuple(slices[: len(shape)])
    checkpoint.save_safetensors({"before": torch.ones(3), "t": tensor}, f"s3://{bucket}/key")
    loaded = checkpoint.load_safetensors(f"s3://{bucket}/key", names={"t": index})["t"]
    assert torch.equal(loaded, tensor[index] if index else tensor)


def test_steps_may_be_of_any_size(checkpoint: S3Checkpoint, bucket: str) -> None:
    table = tensor_of(torch.int16, 4, 5)
    checkpoint.save_safetensors({"table": table, "none": table[:0]}, f"s3://{bucket}/key")
    for index in ((slice(1, None, 2**63), slice(2, None, 2**70)), (slice(None), slice(None, None, 2**64))):
        loaded = checkpoint.load_safetensors(f"s3://{bucket}/key", names={"table": index, "none": index})
        smaller = tuple(slice(each.start, each.stop, each.step and 100) for each in index)
        assert torch.equal(loaded["table"], table[smaller])
        assert torch.equal(loaded["none"], table[:0][smaller])


_BAD_NAMES: list[tuple[Any, type[Exception], str]] = [
    (["nobody"], KeyError, "no tensor 'nobody'"),
    ("table", TypeError, r"write \['table'\]"),
    ({"table": 3}, TypeError, r"write slice\(3, 4\)"),
    ({"table": (slice(1), 3)}, TypeError, "tuple of slices"),
    ({"table": (slice(1), slice(1), slice(1))}, ValueError, "2 dimensions"),
    ({"table": slice(None, None, -1)}, ValueError, "negative step"),
]


@pytest.mark.parametrize(("names", "error", "text"), _BAD_NAMES)
def test_invalid_names_are_refused(
    checkpoint: S3Checkpoint, bucket: str, names: Any, error: type[Exception], text: str
) -> None:
    checkpoint.save_safetensors({"table": torch.ones(3, 3)}, f"s3://{bucket}/key")
    with pytest.raises(error, match=text):
        checkpoint.load_safetensors(f"s3://{bucket}/key", names=names)


def test_a_false_header_is_refused_before_allocation(
    checkpoint: S3Checkpoint, proxy: RecordingProxy, bucket: str
) -> None:
    entry = {"dtype": "U8", "shape": [2**40], "data_offsets": [0, 2**40]}
    _store(checkpoint, f"s3://{bucket}/key", file_of({"a": entry}, bytes(10)))
    tracemalloc.start()
    try:
        with pytest.raises(S3FormatError, match=f"s3://{bucket}/key is not a valid safetensors file") as caught:
            checkpoint.load_safetensors(f"s3://{bucket}/key")
        assert tracemalloc.get_traced_memory()[1] < 2 * MIB
    finally:
        tracemalloc.stop()
    assert (caught.value.bucket, caught.value.key) == (bucket, "key")
    assert len(proxy.of("GET")) == 1


def test_a_type_that_torch_lacks_is_an_error_only_if_wanted(checkpoint: S3Checkpoint, bucket: str) -> None:
    header = {
        "a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]},
        "b": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]},
    }
    _store(checkpoint, f"s3://{bucket}/key", file_of(header, b"xy"))
    with pytest.raises(S3FormatError, match="'a' has the type F4"):
        checkpoint.load_safetensors(f"s3://{bucket}/key")
    assert checkpoint.load_safetensors(f"s3://{bucket}/key", names=["b"])["b"].tolist() == [ord("y")]


def test_a_broken_connection_is_resumed_inside_a_tensor(
    checkpoint: S3Checkpoint, proxy: RecordingProxy, bucket: str
) -> None:
    tensors = {f"{i}": tensor_of(torch.uint8, 700_001, seed=i) for i in range(10)}
    checkpoint.save_safetensors(tensors, f"s3://{bucket}/key")
    cut = CutBody(after=1_000_000)
    proxy.misbehave = first(2, cut, when=lambda request: request.method == "GET" and request.range != _HEAD)
    assert same(checkpoint.load_safetensors(f"s3://{bucket}/key"), tensors)
    begun = [int((each.range or "")[6:].split("-")[0]) for each in proxy.of("GET")]
    assert len([start for start in begun if start + 1_000_000 in begun]) == 2


def test_a_file_overwritten_during_a_load_is_not_mixed(
    checkpoint: S3Checkpoint, proxy: RecordingProxy, bucket: str, s3_server: S3Server
) -> None:
    uri = f"s3://{bucket}/key"
    checkpoint.save_safetensors({"a": torch.zeros(MIB)}, uri)
    other = checkpoint_of(s3_server.endpoint)

    def overwrite(request: Any) -> None:
        if request.range and not request.range.startswith("bytes=0-"):
            other.save_safetensors({"a": torch.ones(MIB + 1)}, uri)

    proxy.misbehave = overwrite
    with pytest.raises(S3ObjectChangedError):
        checkpoint.load_safetensors(uri)


def test_tensors_for_other_devices_are_loaded_in_waves(
    checkpoint: S3Checkpoint, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3torchconnector._safetensors._load.WAVE_BYTES", 100)
    checkpoint.save_safetensors({f"{i}": torch.ones(i) for i in range(50)}, f"s3://{bucket}/key")
    loaded = checkpoint.load_safetensors(f"s3://{bucket}/key", device="meta")
    assert {name: (tensor.device.type, len(tensor)) for name, tensor in loaded.items()} == {
        f"{i}": ("meta", i) for i in range(50)
    }
