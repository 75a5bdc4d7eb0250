"""What the tests of safetensors share: files of any header, and tensors of every type."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import torch

from s3torchconnector import S3Checkpoint, S3ClientConfig
from s3torchconnector._config import MIB
from s3torchconnector._safetensors._types import TORCH_TYPES
from s3torchconnector._tensor_memory import memory_of

SMALL_PARTS = S3ClientConfig(part_size=5 * MIB)


def checkpoint_of(endpoint: str) -> S3Checkpoint:
    return S3Checkpoint("us-east-1", endpoint=endpoint, s3client_config=SMALL_PARTS)


def file_of(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header (bytes as they are, else as JSON), claiming ``length`` bytes of it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor_of(dtype: torch.dtype, *shape: int, seed: int = 0) -> torch.Tensor:
    """Random bits, for booleans random truths."""
    generator = torch.Generator().manual_seed(seed)
    if dtype is torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    tensor = torch.empty(shape, dtype=dtype)
    view = memory_of(tensor)
    view[:] = random.Random(seed).randbytes(len(view))
    return tensor


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Equal names, types, shapes and bits (NaN included)."""
    return left.keys() == right.keys() and all(
        (left[name].dtype, left[name].shape) == (right[name].dtype, right[name].shape)
        and memory_of(left[name].contiguous()) == memory_of(right[name].contiguous())
        for name in left
    )


DTYPES = list(TORCH_TYPES.values())
