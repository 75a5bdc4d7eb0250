"""A tensor that stands for another one, and has no memory of its own."""

from __future__ import annotations

from typing import Any

import torch


class Wrapper(torch.Tensor):
    """Does not say how the other one is reached (``__tensor_flatten__``), but pickles."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Wrapper:
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)  # type: ignore[attr-defined]

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function: Any, _: Any, arguments: Any = (), keywords: Any = None) -> Any:
        found = function(*(each.inner if isinstance(each, cls) else each for each in arguments), **(keywords or {}))
        return cls(found) if isinstance(found, torch.Tensor) else found

    def __reduce_ex__(self, _: Any) -> Any:
        return Wrapper, (self.inner,)
