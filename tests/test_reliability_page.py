"""docs/internals/reliability.md: each promise names a test, and each test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_PAGE = (_ROOT / "docs/internals/reliability.md").read_text(encoding="utf-8")
_PROMISES = _PAGE.partition("## What is promised")[2].partition("\n## ")[0]
_ROWS = [line.strip("| ").split(" | ") for line in _PROMISES.splitlines() if line.startswith("| ")]
_HEADER = ["promise", "tests"]
_NAMED = sorted(set(re.findall(r"`(tests/[^`]*)`", _PAGE)))


def test_each_promise_is_held_by_a_test() -> None:
    promises = [row for row in _ROWS if row != _HEADER]
    assert len(promises) > 60
    for promise, tests in promises:
        assert "`tests/" in tests, promise


@pytest.mark.parametrize("named", _NAMED)
def test_a_named_test_exists(named: str) -> None:
    path, _, name = named.partition("::")
    source = (_ROOT / path).read_text(encoding="utf-8")
    assert re.search(rf"^def {name}\(", source, re.MULTILINE) if name else "def test_" in source
