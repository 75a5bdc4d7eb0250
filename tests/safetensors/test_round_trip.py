"""Files of ours are read by the safetensors library, and its files by us: every type and shape, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch._subclasses.fake_tensor import FakeTensorMode

from s3torchconnector import S3Checkpoint
from s3torchconnector._tensor_memory import memory_of
from s3torchconnector.testing import S3Server
from tests.safetensors.support import DTYPES, checkpoint_of, same, tensor_of
from tests.wrapper_tensor import Wrapper

_LIBRARY_DTYPES = list(safetensors.torch._TYPES.values())


@pytest.fixture
def checkpoint(s3_server: S3Server) -> S3Checkpoint:
    return checkpoint_of(s3_server.endpoint)


def _stored(checkpoint: S3Checkpoint, uri: str) -> bytes:
    with checkpoint.reader(uri) as reader:
        return reader.read()


def _store(checkpoint: S3Checkpoint, uri: str, data: bytes) -> None:
    with checkpoint.writer(uri) as writer:
        writer.write(data)


def test_every_type_of_the_library_is_known() -> None:
    assert set(_LIBRARY_DTYPES) <= set(DTYPES)


_tensors = st.builds(
    lambda dtype, shape, seed: tensor_of(dtype, *shape, seed=seed),
    st.sampled_from(_LIBRARY_DTYPES),
    st.lists(st.integers(0, 5), max_size=4),
    st.integers(0, 2**32),
)
_dicts = st.dictionaries(st.text(max_size=8).filter(lambda name: name != "__metadata__"), _tensors, max_size=6)


@settings(max_examples=40)
@given(_dicts, st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2))
def test_both_ways(
    checkpoint: S3Checkpoint, bucket: str, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None
) -> None:
    uri = f"s3://{bucket}/model.safetensors"
    checkpoint.save_safetensors(tensors, uri, metadata)
    assert same(safetensors.torch.load(_stored(checkpoint, uri)), tensors)
    # The library cannot read the metadata that it writes for a file without tensors.
    _store(checkpoint, uri, safetensors.torch.save(tensors, metadata if tensors else None))
    assert same(checkpoint.load_safetensors(uri), tensors)


def test_types_that_the_library_cannot_write_round_trip(checkpoint: S3Checkpoint, bucket: str) -> None:
    tensors = {str(dtype): tensor_of(dtype, 3, 2) for dtype in DTYPES}
    checkpoint.save_safetensors(tensors, f"s3://{bucket}/key")
    assert same(checkpoint.load_safetensors(f"s3://{bucket}/key"), tensors)


def test_metadata_matches_the_library(checkpoint: S3Checkpoint, bucket: str, tmp_path: pytest.TempPathFactory) -> None:
    checkpoint.save_safetensors({"a": torch.ones(2)}, f"s3://{bucket}/key", {"format": "pt"})
    path = f"{tmp_path}/file"
    with open(path, "wb") as file:
        file.write(_stored(checkpoint, f"s3://{bucket}/key"))
    with safe_open(path, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}


def test_views_are_stored_with_their_own_content(checkpoint: S3Checkpoint, bucket: str) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "transposed": base.T,
        "every second": base[:, ::2],
        "from the middle": base[1:3],
        "expanded": base[:1].expand(3, 6),
        "conjugate": torch.complex(base, base).conj(),
        "negated": torch.complex(base, base).conj().imag,
        "tied": base,
        "parameter": torch.nn.Parameter(base),
    }
    checkpoint.save_safetensors(tensors, f"s3://{bucket}/key")
    loaded = checkpoint.load_safetensors(f"s3://{bucket}/key")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    assert len({tensor.untyped_storage().data_ptr() for tensor in loaded.values()}) == len(tensors)


def test_tensors_are_sent_from_their_own_memory(
    checkpoint: S3Checkpoint, bucket: str, lent: list[tuple[int, int]]
) -> None:
    base = torch.randn(3000, 1000)
    lendable = {"parameter": torch.nn.Parameter(base), "rows": base[100:200]}
    others = {"transposed": base.T, "conjugate": torch.complex(base, base).conj(), "small": base[0, :10]}
    checkpoint.save_safetensors({**lendable, **others}, f"s3://{bucket}/key")
    assert sorted(lent) == sorted((tensor.data_ptr(), tensor.nbytes) for tensor in lendable.values())
    loaded = checkpoint.load_safetensors(f"s3://{bucket}/key")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in {**lendable, **others}.items())


def _fake() -> torch.Tensor:
    with FakeTensorMode():
        return torch.ones(1000)


_WRAPPERS: dict[str, Callable[[], torch.Tensor]] = {
    "wrapper": lambda: Wrapper(torch.ones(1000)),
    "parameter of it": lambda: torch.nn.Parameter(Wrapper(torch.ones(1000))),
    "masked": lambda: torch.masked.masked_tensor(torch.ones(1000), torch.ones(1000) > 0),
    "fake": _fake,
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of PyTorch, which calls some of them prototypes
@pytest.mark.parametrize("what", _WRAPPERS)
def test_tensors_without_memory_are_refused(checkpoint: S3Checkpoint, bucket: str, what: str) -> None:
    with pytest.raises(TypeError, match="'odd'"):
        checkpoint.save_safetensors({"odd": _WRAPPERS[what]()}, f"s3://{bucket}/key")
    with pytest.raises(FileNotFoundError):
        checkpoint.load_safetensors(f"s3://{bucket}/key")


def test_a_subclass_with_memory_is_stored(checkpoint: S3Checkpoint, bucket: str) -> None:
    class Named(torch.Tensor):
        pass

    tensors = {"named": torch.ones(3).as_subclass(Named), "none of it": torch.ones(0).as_subclass(Named)}
    checkpoint.save_safetensors(tensors, f"s3://{bucket}/key")
    assert same(checkpoint.load_safetensors(f"s3://{bucket}/key"), tensors)


def test_no_address_is_no_memory() -> None:
    with pytest.raises(ValueError, match="no memory"):
        memory_of(torch.ones(3, device="meta"))


_REFUSED = {
    "no tensor": {"a": [1.0]},
    "type": {"a": torch.zeros(2, dtype=torch.complex128)},
    "sparse": {"a": torch.eye(3).to_sparse()},
    "meta": {"a": torch.empty(3, device="meta")},
    "number as name": {1: torch.ones(2)},
    "reserved name": {"__metadata__": torch.ones(2)},
}


@pytest.mark.parametrize("what", _REFUSED)
def test_what_the_format_cannot_store_is_refused(checkpoint: S3Checkpoint, bucket: str, what: str) -> None:
    with pytest.raises(TypeError):
        checkpoint.save_safetensors({"fine": torch.ones(2), **_REFUSED[what]}, f"s3://{bucket}/key")
    with pytest.raises(FileNotFoundError):
        checkpoint.load_safetensors(f"s3://{bucket}/key")


def test_metadata_must_be_strings(checkpoint: S3Checkpoint, bucket: str) -> None:
    with pytest.raises(TypeError, match="must map strings to strings"):
        checkpoint.save_safetensors({}, f"s3://{bucket}/key", {"epoch": 3})  # type: ignore[dict-item]
