"""A background save stores the same as a save at once: types, content, and which objects are shared."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector import S3CheckpointManager
from s3torchconnector.testing import S3Server
from tests.wrapper_tensor import Wrapper


class _Pair(NamedTuple):
    first: Any
    second: Any


class _Holder:
    def __init__(self, first: Any, second: Any) -> None:
        self.first = first
        self.second = second


@pytest.fixture
def manager(s3_server: S3Server, bucket: str) -> S3CheckpointManager:
    return S3CheckpointManager(f"s3://{bucket}/run", "us-east-1", endpoint=s3_server.endpoint)


def _both(manager: S3CheckpointManager, state: Any) -> tuple[Any, Any]:
    """The state as loaded after a save at once, and after a save in the background."""
    manager.save(1, state)
    manager.save_async(2, state).result(timeout=30)
    sizes = [each.size for step in (1, 2) for each in manager._store.manifest(step).objects]
    assert sizes == [sizes[0]] * 2
    return manager.load(1, weights_only=False), manager.load(2, weights_only=False)


class _Description:
    """A state as text. What was described before is a number, so that sharing and cycles show."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._storages: dict[int, int] = {}

    def of(self, value: Any) -> Any:
        if isinstance(value, str | int | torch.dtype):
            return value
        if id(value) in self._seen:
            return f"the same as {self._seen[id(value)]}"
        self._seen[id(value)] = len(self._seen)
        return type(value), *self._content(value)

    def _content(self, value: Any) -> list[Any]:
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, dict):
            return [(key, self.of(each)) for key, each in value.items()]
        if isinstance(value, list | tuple):
            return [self.of(each) for each in value]
        return [self.of(vars(value))]

    def _tensor(self, tensor: torch.Tensor) -> list[Any]:
        storage = tensor.untyped_storage()
        number = self._storages.setdefault(storage.data_ptr(), len(self._storages))
        marks = tensor.requires_grad, tensor.is_conj(), tensor.is_neg(), str(tensor.device)
        layout = tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.storage_offset()
        return [number, _content(storage), *layout, *marks]


def _content(storage: torch.UntypedStorage) -> Any:
    if storage.device.type == "meta":
        return storage.nbytes()
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy().tobytes()  # type: ignore[call-overload]


def _add(first: Any, second: Any) -> Any:
    """Put one container into the other, which may contain it already."""
    if isinstance(first, list):
        first.append(second)
    elif isinstance(first, dict):
        first[f"more {len(first)}"] = second
    elif isinstance(first, _Holder):
        first.second = second
    return second


_CONTAINERS: dict[str, Callable[[Any, Any], Any]] = {
    "list": lambda first, second: [first, second],
    "dict": lambda first, second: {"first": first, "second": second},
    "ordered": lambda first, second: OrderedDict(first=first, second=second),
    "tuple": lambda first, second: (first, second),
    "pair": _Pair,
    "object": _Holder,
    "add": _add,
}
_TENSORS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "tail": lambda tensor: tensor[1:],
    "transposed": lambda tensor: tensor.transpose(0, -1),
    "every second": lambda tensor: tensor[..., ::2],
    "conjugated": lambda tensor: tensor.conj(),
    "copy": lambda tensor: tensor.detach().clone(),
    "parameter": lambda tensor: torch.nn.Parameter(tensor.detach(), requires_grad=tensor.is_floating_point()),
    "computed": lambda tensor: tensor * 2,
    "small": lambda tensor: torch.arange(6).reshape(2, 3),
    "large": lambda tensor: torch.full((3, 20_000), 1.5),  # large enough to be lent
    "complex": lambda tensor: torch.full((2, 2), 1 + 2j),
    "meta": lambda tensor: tensor.detach().to("meta"),
}


def _built(instructions: list[tuple[str, int, int]]) -> dict[str, Any]:
    """A state whose later parts are made of earlier ones."""
    tensors = [torch.arange(12.0).reshape(3, 4)]
    values: list[Any] = [*tensors, "text", 7]
    for kind, one, other in instructions:
        if kind in _TENSORS:
            tensors.append(_TENSORS[kind](tensors[one % len(tensors)]))
            values.append(tensors[-1])
        else:
            values.append(_CONTAINERS[kind](values[one % len(values)], values[other % len(values)]))
    return {"last": values[-1], "all": values}


_instructions = st.lists(
    st.tuples(st.sampled_from([*_TENSORS, *_CONTAINERS]), st.integers(0, 99), st.integers(0, 99)), max_size=25
)


@settings(max_examples=60)
@given(_instructions)
def test_any_state(manager: S3CheckpointManager, instructions: list[tuple[str, int, int]]) -> None:
    at_once, later = _both(manager, _built(instructions))
    assert _Description().of(later) == _Description().of(at_once)


def test_descriptions_distinguish_states() -> None:
    """The oracle of ``test_any_state`` sees the differences that it must see."""
    weight = torch.ones(3)
    states: list[Any] = [
        [weight, weight],
        [weight, weight.clone()],
        [weight, weight[:]],
        [weight, torch.nn.Parameter(weight)],
        (weight, weight),
        _Pair(weight, weight),
    ]
    states.append([weight, states])
    said = [repr(_Description().of(state)) for state in states]
    assert len(set(said)) == len(states)


def test_a_model_and_its_optimizer_go_on_training_together(manager: S3CheckpointManager) -> None:
    model = torch.nn.Linear(100, 100)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for loaded in _both(manager, {"model": model, "optimizer": optimizer}):
        before = loaded["model"].weight.detach().clone()
        loaded["model"](torch.ones(1, 100)).sum().backward()
        loaded["optimizer"].step()
        assert not torch.equal(loaded["model"].weight, before)


def _at_one_address() -> list[torch.Tensor]:
    numbers = np.arange(10_000.0)
    return [torch.from_numpy(numbers[:9000]), torch.from_numpy(numbers)]  # two storages


_ODD: dict[str, Callable[[], Any]] = {
    "computed, in an object": lambda: _Holder(torch.ones(3, requires_grad=True) * 2, 1),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "compressed": lambda: torch.eye(3).to_sparse_csr(),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "jagged": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),  # named anew
    "masked": lambda: torch.masked.masked_tensor(torch.ones(3), torch.ones(3) > 0),
    "quantized by channel": lambda: torch.quantize_per_channel(
        torch.ones(4, 2), torch.ones(4), torch.zeros(4), 0, torch.qint8
    ),
    "storage": lambda: torch.ones(3).untyped_storage(),
    "at one address": _at_one_address,
    "wrapper": lambda: Wrapper(torch.ones(300, 100)),
    "random": lambda: random.Random(1),
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # PyTorch's, of old kinds and new
@pytest.mark.parametrize("what", _ODD)
def test_whatever_can_be_saved(manager: S3CheckpointManager, what: str) -> None:
    at_once, later = _both(manager, {"odd": _ODD[what]()})
    assert type(later["odd"]) is type(at_once["odd"])
    if what not in ("computed, in an object", "jagged", "random", "wrapper"):
        assert repr(later) == repr(at_once)


def test_what_cannot_be_saved_is_refused_at_once(manager: S3CheckpointManager) -> None:
    with pytest.raises(Exception, match="lambda"):
        manager.save_async(1, {"function": lambda: None})
    assert manager.steps() == []
    manager.save(1, {"fine": 1})
