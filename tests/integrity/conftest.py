"""Surroundings of these tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _short_pauses(short_pauses: None) -> None:
    """In every test here."""
