"""The pages, taken apart: README.md and docs/guide for users, docs/internals for developers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Block:
    """One fenced block. ``line`` is the number of the line before its first, ``page`` the path from the root.

    ``printed`` is the text block right below it, which says what it prints.
    """

    page: str
    line: int
    text: str
    printed: str | None = None


class Page:
    """One page of Markdown."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.relative_to(ROOT).as_posix()
        self.text = path.read_text(encoding="utf-8")

    def blocks(self, language: str) -> list[Block]:
        """Its blocks in one language, in order."""
        block = r"^```{}\n(.*?)^```$"
        pattern = block.format(language) + r"(?:\n\n" + block.format("text") + ")?"
        found = re.finditer(pattern, self.text, re.DOTALL | re.MULTILINE)
        return [Block(self.name, self.text.count("\n", 0, match.start(1)), match[1], match[2]) for match in found]

    @cached_property
    def prose(self) -> str:
        """All but the blocks."""
        return re.sub(r"^```.*?^```$", "", self.text, flags=re.DOTALL | re.MULTILINE)

    def section(self, title: str) -> str:
        """The text below a heading, up to the next one of its level or above."""
        head = re.search(rf"^(#+) {re.escape(title)}\n", self.text, re.MULTILINE)
        assert head is not None, f"{self.name} has no section {title!r}"
        return re.split(rf"^#{{1,{len(head[1])}}} ", self.text[head.end() :], maxsplit=1, flags=re.MULTILINE)[0]

    def rows(self, title: str) -> list[list[str]]:
        """The cells of the table in a section, without its head."""
        lines = [line for line in self.section(title).splitlines() if line.startswith("|")]
        return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines[2:]]

    @cached_property
    def anchors(self) -> list[str]:
        """The anchors of its headings, as GitHub makes them."""
        return [anchor for level in range(1, 7) for anchor in self.anchors_of(level)]

    def anchors_of(self, level: int) -> list[str]:
        """Those of one level."""
        titles = re.findall(rf"^#{{{level}}} (.*)$", self.prose, re.MULTILINE)
        return [re.sub(r"[^a-z0-9_ -]", "", title.lower()).replace(" ", "-") for title in titles]

    @cached_property
    def links(self) -> list[str]:
        """Where its links and images lead."""
        return re.findall(r"\]\(([^)\s]+)\)", self.prose)


README = Page(ROOT / "README.md")
GUIDE = {path.stem: Page(path) for path in sorted((ROOT / "docs/guide").glob("*.md"))}
PAGES = [README, *GUIDE.values()]
CONTRIBUTING = Page(ROOT / "CONTRIBUTING.md")
SECURITY = Page(ROOT / "SECURITY.md")
INTERNALS = {path.stem: Page(path) for path in sorted((ROOT / "docs/internals").glob("*.md"))}
