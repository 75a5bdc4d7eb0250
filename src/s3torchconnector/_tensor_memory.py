"""The memory of a tensor, to receive into and to send from."""

from __future__ import annotations

import ctypes
from typing import Any

import torch


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is of PyTorch's own class. A subclass may have no memory, or memory of another size."""
    return type(tensor) in (torch.Tensor, torch.nn.Parameter)


def memory_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, writable. The view keeps the tensor's memory alive."""
    return memory_at(tensor.data_ptr(), tensor.numel() * tensor.element_size(), tensor.untyped_storage())


def memory_at(address: int, count: int, owner: Any) -> memoryview:
    """``count`` bytes of memory, writable, in a view that keeps ``owner`` alive.

    Raises:
        ValueError: the address is 0, as that of a tensor that only stands for others.
    """
    if not count:
        return memoryview(bytearray())
    if not address:
        raise ValueError(f"this tensor has {count} bytes, but no memory of its own")
    memory = (ctypes.c_char * count).from_address(address)
    memory.owner = owner  # type: ignore[attr-defined]
    return memoryview(memory).cast("B")
