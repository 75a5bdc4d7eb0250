"""The layout of a stored tensor: as ``torch.load`` finds its numbers, or None."""

from __future__ import annotations

import io
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed._shard._utils import narrow_tensor_by_index

from s3torchconnector.dcp._layout import layout_of
from s3torchconnector.dcp._plan import HEAD

_DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool, torch.float8_e4m3fn,
    torch.float8_e5m2,
]  # fmt: skip


def _saved(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


@given(st.sampled_from(_DTYPES), st.lists(st.integers(1, 6), max_size=4), st.data())
def test_numbers_and_slices_are_where_the_layout_says(
    dtype: torch.dtype, shape: list[int], data: st.DataObject
) -> None:
    tensor = torch.randint(0, 2, shape).to(dtype)
    saved = _saved(tensor)
    layout = layout_of(saved[:HEAD], len(saved))
    assert layout is not None
    assert (layout.dtype, list(layout.shape)) == (dtype, shape)
    offsets = [data.draw(st.integers(0, size - 1)) for size in shape]
    lengths = [data.draw(st.integers(1, size - offset)) for size, offset in zip(shape, offsets, strict=True)]
    part = narrow_tensor_by_index(tensor, offsets, lengths)
    place = layout.slice_of(offsets, lengths)
    assert (place is not None) == part.is_contiguous()
    if place is not None:
        there = torch.frombuffer(bytearray(saved[place.start : place.stop]), dtype=torch.uint8)
        assert there.tolist() == part.contiguous().reshape(-1).view(torch.uint8).tolist()


def test_a_size_that_looks_like_a_record_is_left_to_pytorch() -> None:
    """The description of this tensor contains the signature of a zip record, at which the search stops."""
    saved = _saved(torch.empty(int.from_bytes(b"PK\x03\x04", "little"), dtype=torch.uint8))
    assert layout_of(saved[:HEAD], len(saved)) is None


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(3, 4).t(),
        torch.ones(10)[2:5],
        torch.ones(3).expand(3),
        torch.ones(1).expand(3),
        torch.empty(0, 2),
        torch.ones(2, dtype=torch.complex64).conj(),
        torch.ones(2, dtype=torch.complex64).conj().imag,
        torch.nn.Parameter(torch.ones(3)),
        torch.ones(3).to_sparse(),
        {"a": torch.ones(3)},
        "no tensor",
    ],
    ids=str,
)
def test_other_items_are_left_to_torch(value: object) -> None:
    saved = _saved(value)
    layout = layout_of(saved[:HEAD], len(saved))
    if isinstance(value, torch.Tensor) and layout is not None:  # simple after all
        assert type(value) is torch.Tensor
        assert layout.slice_of([0] * value.dim(), value.shape) == (layout.start, layout.stop)
        assert value.is_contiguous()
        assert not value.is_conj()
        assert not value.is_neg()


def test_a_false_length_is_noticed() -> None:
    saved = _saved(torch.ones(100))
    assert layout_of(saved, 400) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_no_layout(head: bytes) -> None:
    assert layout_of(head, 10**6) is None


@given(st.data())
def test_damaged_heads_do_no_harm(data: st.DataObject) -> None:
    saved = bytearray(_saved(torch.ones(5, 7)))
    for _ in range(data.draw(st.integers(1, 4))):
        saved[data.draw(st.integers(0, 700))] = data.draw(st.integers(0, 255))
    layout = layout_of(bytes(saved[: data.draw(st.integers(0, 800))]), len(saved))
    assert layout is None or layout.stop <= len(saved)


def test_a_description_cannot_take_memory() -> None:
    """The unpickler allocates a memo as large as the highest index in the pickle."""
    saved = _saved(torch.ones(3))
    place = saved.index(b"\x80\x02") + 2
    damaged = saved[:place] + b"K\x00r\xff\xff\xff\xff0" + saved[place:]
    assert layout_of(saved, len(saved)) is not None
    assert layout_of(damaged, len(damaged)) is None


def test_no_code_of_the_item_runs() -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, ...]:
            return print, ("harm",)

    saved = _saved(torch.ones(3))
    size = len(pickle.dumps(Harm(), 2))
    place = saved.index(b"\x80\x02")
    assert layout_of(saved[:place] + pickle.dumps(Harm(), 2) + saved[place + size :], len(saved)) is None
