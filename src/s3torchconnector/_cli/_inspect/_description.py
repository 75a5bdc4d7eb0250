"""The results of ``s3torch inspect``: tensors, totals, problems. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from s3torchconnector._cli._checkpoints._states import StepState

_BITS = re.compile(r"[a-z]+?(\d{1,4})")


class Tensor(NamedTuple):
    """One tensor of a file.

    Attributes:
        name: with dots between the keys that lead to it.
        dtype: PyTorch's name without ``torch.``, or the format's if PyTorch has none.
        bytes: of its elements.
        file: the object that has it, relative to the folder; None if only one object was looked at.
        same_as: the name of an earlier tensor that has the same elements in the same memory, as tied weights have.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    file: str | None = None
    same_as: str | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


class Total(NamedTuple):
    """Tensors, elements (parameters) and bytes, without those that are the same as another."""

    tensors: int
    parameters: int
    bytes: int


@dataclass
class Description:
    """What was found.

    Attributes:
        kind: ``"torch"``, ``"safetensors"``, ``"folder"``, ``"dcp"``, ``"manifest"`` or ``"checkpoints"``.
        title: the same for a person.
        facts: what else there is to say, by name.
        problems: what is damaged or contradicts itself, in words.
        steps: of numbered checkpoints.
    """

    uri: str
    kind: str
    title: str
    tensors: list[Tensor] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    steps: list[StepState] = field(default_factory=list)

    def by_dtype(self) -> dict[str, Total]:
        """The totals of each dtype, the one with the most bytes first."""
        found: dict[str, list[Tensor]] = {}
        for tensor in self.tensors:
            if tensor.same_as is None:
                found.setdefault(tensor.dtype, []).append(tensor)
        totals = {dtype: total(tensors) for dtype, tensors in found.items()}
        return dict(sorted(totals.items(), key=lambda item: -item[1].bytes))

    def total(self) -> Total:
        """The total of all."""
        return total(tensor for tensor in self.tensors if tensor.same_as is None)

    def document(self, *, only_totals: bool) -> dict[str, Any]:
        """As JSON."""
        if self.kind == "checkpoints":
            return {"uri": self.uri, "kind": self.kind, "steps": [each.document() for each in self.steps]}
        by_dtype = {name: each._asdict() for name, each in self.by_dtype().items()}
        totals = {**self.total()._asdict(), "by_dtype": by_dtype}
        tensors = {} if only_totals else {"tensors": [tensor._asdict() for tensor in self.tensors]}
        return {"uri": self.uri, "kind": self.kind, **self.facts, **tensors, "total": totals, "problems": self.problems}


def total(tensors: Iterable[Tensor]) -> Total:
    """What these add up to."""
    there = list(tensors)
    return Total(len(there), sum(tensor.elements for tensor in there), sum(tensor.bytes for tensor in there))


def item_size(dtype: str) -> int:
    """Bytes of one element, from PyTorch's name of its type. Elements of less than a byte take one.

    Raises:
        ValueError: no type has such a name.

    >>> from s3torchconnector._cli._inspect._description import item_size
    >>> item_size("bfloat16"), item_size("float8_e4m3fn"), item_size("complex64"), item_size("bool")
    (2, 1, 8, 1)
    """
    if dtype in ("bool", "bit"):
        return 1
    match = _BITS.match(dtype)
    if match is None:
        raise ValueError(f"there is no type {dtype!r}")
    return max(1, int(match[1]) // 8)
