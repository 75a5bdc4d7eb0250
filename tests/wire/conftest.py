"""Keys for servers that check no signature; the secret must never appear anywhere."""

from __future__ import annotations

import pytest

from tests.wire.support import ACCESS_KEY, SECRET, TOKEN


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment has keys and a token."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
