"""A state is small, plain, and refused by a dataset that it does not describe."""

from __future__ import annotations

import io
import json
import pickle
from typing import Any

import pytest
import torch

from s3torchconnector._datasets._state import Settings, resume_at, state_of
from s3torchconnector.errors import S3ConfigurationError

SETTINGS = Settings("0123456789abcdef" * 2, 12_811_670, 2**63 + 1, True)


def state(**changes: Any) -> dict[str, Any]:
    return {**state_of(SETTINGS, 3, 5_734_400, 32, 64), **changes}


def test_a_state_is_as_documented_and_round_trips() -> None:
    assert state() == {
        "version": 1, "epoch": 3, "position": 5_734_400, "seed": 2**63 + 1, "order": "feistel-1", "shuffle": True,
        "samples": 12_811_670, "manifest": "0123456789abcdef" * 2, "batch_size": 32, "num_replicas": 64,
    }  # fmt: skip
    assert resume_at(state(), SETTINGS) == (3, 5_734_400)


def test_a_state_is_small_and_plain() -> None:
    assert len(pickle.dumps(state())) <= 512
    assert json.loads(json.dumps(state())) == state()
    file = io.BytesIO()
    torch.save(state(), file)
    file.seek(0)
    assert torch.load(file, weights_only=True) == state()


def test_the_end_of_an_epoch_is_the_beginning_of_the_next() -> None:
    assert resume_at(state(position=12_811_670), SETTINGS) == (4, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("manifest", "f" * 32), ("samples", 7), ("seed", 1), ("shuffle", False), ("order", "feistel-2")],
)
def test_a_state_of_something_else_names_both_values(name: str, value: Any) -> None:
    with pytest.raises(S3ConfigurationError) as caught:
        resume_at(state(**{name: value}), SETTINGS)
    assert f"{name}={value!r}" in str(caught.value)
    assert f"{name}={getattr(SETTINGS, name)!r}" in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"position": -1}, {"position": 12_811_671}, {"epoch": -1}, {"version": 2}, {"epoch": "3"}]
)
def test_an_impossible_state_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(S3ConfigurationError):
        resume_at(state(**changes), SETTINGS)


@pytest.mark.parametrize("other", [{}, {"version": 1}, [], None, 3])
def test_a_value_that_is_not_a_state_is_refused(other: Any) -> None:
    with pytest.raises(S3ConfigurationError, match="not a state of an S3StreamingDataset"):
        resume_at(other, SETTINGS)


def test_other_topologies_are_no_reason_to_refuse() -> None:
    assert resume_at(state(batch_size=7, num_replicas=3), SETTINGS) == (3, 5_734_400)
