"""docs/internals/decisions: each decision is dated, complete and in the index, whose links lead to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_FOLDER = Path(__file__).parents[1] / "docs/internals/decisions"
_PAGES = sorted(path.name for path in _FOLDER.glob("*.md") if path.name != "README.md")
_LABELS = ["Context", "Decision", "Measured and rejected", "Consequences"]


def _sections(page: str) -> dict[str, str]:
    """The decisions of a page: title and text."""
    _, *sections = re.split(r"^## ", (_FOLDER / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {title: text for title, _, text in (section.partition("\n") for section in sections)}


def _anchor(title: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", _PAGES)
def test_each_decision_has_a_date_and_all_parts(page: str) -> None:
    for title, text in _sections(page).items():
        assert re.match(r"\n\*20\d\d-\d\d-\d\d", text), title
        assert re.findall(r"^\*\*(.*)\.\*\* \S", text, re.MULTILINE) == _LABELS, title


def test_the_index_lists_every_decision() -> None:
    index = (_FOLDER / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[(.*)\]\((.*)\) \((20\d\d-\d\d-\d\d)\)$", index, re.MULTILINE)
    written = {
        (title, f"{page}#{_anchor(title)}", text.strip()[1:11])
        for page in _PAGES
        for title, text in _sections(page).items()
    }
    assert sorted(listed) == sorted(written)
    assert len(listed) >= 20
