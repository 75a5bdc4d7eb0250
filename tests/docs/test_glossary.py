"""docs/internals/glossary.md: short, and each word is one that the file named with it uses."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import INTERNALS, ROOT

_GLOSSARY = INTERNALS["glossary"]
_SECTIONS = ["Words", "Fetched early", "What ends"]
_MOST_WORDS = 40


def _letters(text: str) -> str:
    """``non-blocking mode``, ``NonBlocking`` and ``non_blocking`` begin alike."""
    return re.sub(r"[^a-z]", "", text.lower())


@pytest.mark.parametrize("title", _SECTIONS)
def test_each_word_is_used_in_its_file(title: str) -> None:
    rows = _GLOSSARY.rows(title)
    assert len(rows) >= 3
    for word, *_, file in rows:
        source = (ROOT / "src/s3torchconnector" / file.strip("`")).read_text(encoding="utf-8")
        assert _letters(word) in _letters(f"{file} {source}"), word


def test_the_words_are_few_and_sorted() -> None:
    words = [word for word, *_ in _GLOSSARY.rows("Words")]
    assert len(words) <= _MOST_WORDS
    assert words == sorted(set(words))
