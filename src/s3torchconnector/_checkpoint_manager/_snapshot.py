"""A copy of a state that training may go on changing: tensors in host memory, everything else copied deep."""

from __future__ import annotations

import copy
from typing import Any

import torch

# By device, address and size: storages that begin at one address may differ in size. Each with its copy: while it is
# held here, no other gets its address.
_Storages = dict[tuple[str, int, int], tuple[torch.UntypedStorage, torch.UntypedStorage]]


def snapshot(state: Any) -> Any:
    """Copy ``state``. Tensors that share memory share it in the copy, so that it is not larger than the original."""
    return _copied(state, {})


def _copied(value: Any, storages: _Storages) -> Any:
    if isinstance(value, torch.Tensor):
        return _copied_tensor(value, storages)
    if isinstance(value, dict):
        # With what hangs on it: the versions that torch.nn keeps with a state dict.
        same_kind = copy.copy(value)
        for key, each in value.items():
            same_kind[key] = _copied(each, storages)
        return same_kind
    if type(value) in (list, tuple):
        return type(value)(_copied(each, storages) for each in value)
    return copy.deepcopy(value)


def _copied_tensor(tensor: torch.Tensor, storages: _Storages) -> torch.Tensor:
    plain = tensor.detach()
    if plain.is_meta:
        return plain  # it has no content
    if tensor.layout is not torch.strided or tensor.is_quantized or hasattr(tensor, "__tensor_flatten__"):
        return plain.cpu() if plain.device.type != "cpu" else plain.clone()
    plain = plain.resolve_conj().resolve_neg()
    storage = plain.untyped_storage()
    place = (str(storage.device), storage.data_ptr(), storage.nbytes())
    if place not in storages:
        untyped: Any = storage  # whose methods have no types
        storages[place] = storage, untyped.clone() if storage.device.type == "cpu" else untyped.cpu()
    empty = torch.empty(0, dtype=plain.dtype)
    return empty.set_(storages[place][1], plain.storage_offset(), plain.size(), plain.stride())
