"""Links lead to a file and a heading that exist."""

from __future__ import annotations

import pytest

from tests.docs.pages import CONTRIBUTING, GUIDE, INTERNALS, PAGES, README, ROOT, SECURITY, Page

_DECISIONS = [Page(path) for path in sorted((ROOT / "docs/internals/decisions").glob("*.md"))]
_LINKING = [*PAGES, CONTRIBUTING, SECURITY, *INTERNALS.values(), *_DECISIONS]


@pytest.mark.parametrize("page", _LINKING, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Page) -> None:
    lost = [link for link in page.links if not link.startswith("https://") and not _exists(page, link)]
    assert lost == []


def _exists(page: Page, link: str) -> bool:
    file, _, anchor = link.partition("#")
    target = (page.path.parent / file).resolve() if file else page.path
    if not target.is_relative_to(ROOT) or not target.exists():
        return False
    return not anchor or anchor in Page(target).anchors


def test_a_link_to_a_missing_heading_is_found() -> None:
    assert _exists(README, "docs/guide/errors.md#the-tree")
    assert not _exists(README, "docs/guide/errors.md#no-such-heading")
    assert not _exists(README, "docs/guide/no-such-page.md")


def test_the_index_names_every_page() -> None:
    assert {link for link in GUIDE["README"].links if link.endswith(".md")} == {
        f"{name}.md" for name in GUIDE if name != "README"
    }


@pytest.mark.parametrize("name", [name for name in GUIDE if name != "README"])
def test_a_page_begins_with_links_to_its_sections(name: str) -> None:
    """Troubleshooting: with a table of symptoms."""
    page = GUIDE[name]
    linked = {link.removeprefix("#") for link in page.links if link.startswith("#")}
    sections = page.anchors_of(level=2)
    assert [anchor for anchor in sections if anchor not in linked] == []
