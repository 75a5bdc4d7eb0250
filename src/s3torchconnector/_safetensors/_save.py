"""Saving: the header, then the bytes of every tensor, from its own memory.

Tensors on other devices, and those with gaps between rows, are copied, one at a time. So are small tensors: each tensor
that is sent from its own memory takes a buffer in the request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from s3torchconnector._safetensors._header import BITS, build
from s3torchconnector._safetensors._types import NAMES
from s3torchconnector._tensor_memory import is_plain, memory_of
from s3torchconnector._torch_archives import WORTH_LENDING
from s3torchconnector.s3writer import S3Writer


def save(state_dict: Mapping[str, torch.Tensor], writer: S3Writer, metadata: Mapping[str, str] | None) -> None:
    """Write a file, see ``S3Checkpoint.save_safetensors``. All tensors are checked before the first byte is written."""
    _check_metadata(metadata)
    for name, tensor in state_dict.items():
        _check(name, tensor)
    # In the order of the safetensors library: with the widest types first, each tensor is aligned to its type.
    names = sorted(state_dict, key=lambda name: (-BITS[NAMES[state_dict[name].dtype]], name))
    writer.stream.expect(sum(tensor.nbytes for tensor in state_dict.values()))
    writer.write(build(((name, NAMES[state_dict[name].dtype], state_dict[name].shape) for name in names), metadata))
    for name in names:
        tensor = state_dict[name].detach()
        plain = tensor.resolve_conj().resolve_neg().cpu().contiguous()
        if plain.nbytes >= WORTH_LENDING and tensor.device.type == "cpu" and plain.data_ptr() == tensor.data_ptr():
            writer.stream.write(memory_of(plain), lent=True)  # does not change before ``writer`` is closed or aborted
        else:
            writer.write(memory_of(plain))


def _check(name: Any, tensor: Any) -> None:
    if not isinstance(name, str) or name == "__metadata__":
        raise TypeError(f"the name of a tensor must be a string other than '__metadata__', not {name!r}")
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"a safetensors file has only tensors, but {name!r} is of type {type(tensor).__name__}")
    if tensor.dtype not in NAMES:
        raise TypeError(f"safetensors has no type {tensor.dtype}, which {name!r} has: convert it first")
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_nested:
        raise TypeError(
            f"a safetensors file has only dense tensors with data, but {name!r} is {tensor.layout} on {tensor.device}"
        )
    if _is_wrapper(tensor):
        raise TypeError(
            f"a safetensors file has only whole, plain tensors, but {name!r} is a {type(tensor).__name__}: gather it "
            "first, a DTensor with full_tensor()"
        )


def _is_wrapper(tensor: torch.Tensor) -> bool:
    """Whether a tensor only stands for others (DTensor, MaskedTensor, FakeTensor), and has no memory of its own."""
    if is_plain(tensor):
        return False
    if hasattr(tensor, "__tensor_flatten__"):
        return True
    try:
        return tensor.numel() > 0 and tensor.untyped_storage().data_ptr() == 0
    except RuntimeError:  # which some wrappers raise
        return True


def _check_metadata(metadata: Any) -> None:
    if metadata is not None and not all(isinstance(text, str) for pair in dict(metadata).items() for text in pair):
        raise TypeError(f"the metadata of a safetensors file must map strings to strings, not {metadata!r}")
