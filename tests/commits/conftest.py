"""Surroundings of the explored programs."""

from __future__ import annotations

from functools import partial

import pytest

from s3torchconnector._wire._retry import RetryPolicy


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between attempts; nothing here depends on how long they are."""
    policy = partial(RetryPolicy, first_backoff=0.0, longest_backoff=0.0)
    monkeypatch.setattr("s3torchconnector._wire._caller.RetryPolicy", policy)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
