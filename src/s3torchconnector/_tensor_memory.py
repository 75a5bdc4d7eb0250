"""A tensor's memory as something to receive into and to send from."""

from __future__ import annotations

import ctypes
from typing import Any

import torch


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is one of PyTorch's own, and no subclass, which may have no memory or none of that size."""
    return type(tensor) in (torch.Tensor, torch.nn.Parameter)


def memory_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, writable. The view keeps the tensor's memory."""
    return memory_at(tensor.data_ptr(), tensor.numel() * tensor.element_size(), tensor.untyped_storage())


def memory_at(address: int, count: int, owner: Any) -> memoryview:
    """``count`` bytes of memory, writable, in a view that keeps ``owner`` alive.

    Raises:
        ValueError: there is none: a tensor that only stands for others has its size, and the address 0.
    """
    if not count:
        return memoryview(bytearray())
    if not address:
        raise ValueError(f"there is no memory that holds the {count} bytes of this tensor")
    memory = (ctypes.c_char * count).from_address(address)
    memory.owner = owner  # type: ignore[attr-defined]
    return memoryview(memory).cast("B")
