"""A tensor's memory as something to receive into and to send from."""

from __future__ import annotations

import ctypes

import torch


def memory_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, writable. The view keeps the tensor's memory."""
    count = tensor.numel() * tensor.element_size()
    if not count:
        return memoryview(bytearray())
    memory = (ctypes.c_char * count).from_address(tensor.data_ptr())
    memory.owner = tensor.untyped_storage()  # type: ignore[attr-defined]
    return memoryview(memory).cast("B")
