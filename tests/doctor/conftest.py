"""Keys for servers that accept any."""

from __future__ import annotations

import pytest


@pytest.fixture
def keys(_surroundings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in the environment, and no endpoint."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAFIRSTKEYOFTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
