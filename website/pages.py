"""The page of the site for each file of the repository, and the order of the pages. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]

Navigation = list[dict[str, "str | Navigation"] | str]

_ALONE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "LICENSE": "license.md",
}
_FOLDERS = {"docs/": "", "website/reference/": "reference/", "examples/": "examples/"}
_INTERNALS = ["architecture", "internals/map", "internals/glossary", "internals/reliability", "internals/goals"]


def sources() -> list[str]:
    """The files that pages are made of, as paths from the root of the repository."""
    folders = [path for folder in ("docs", "website/reference") for path in (ROOT / folder).rglob("*.md")]
    found = [ROOT / name for name in _ALONE] + folders + list((ROOT / "examples").glob("*.py"))
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def place_on_site(source: str) -> str | None:
    """Where a file of the repository is on the site, or None if it is not there."""
    if source in _ALONE:
        return _ALONE[source]
    for folder, place in _FOLDERS.items():
        if source.startswith(folder):
            path = PurePosixPath(place + source.removeprefix(folder))
            if path.name == "README.md":
                return str(path.with_name("index.md"))
            return str(path.with_suffix(".md") if path.suffix == ".py" else path)
    return None


def navigation() -> Navigation:
    """The pages in the order of the index of their folder: a page that an index does not name is on no menu."""
    examples = [place_on_site(source) for source in sources() if source.startswith("examples/")]
    decisions = ["internals/decisions/index.md", *_listed("docs/internals/decisions")]
    return [
        {"Home": "index.md"},
        {"Guide": ["guide/index.md", *_listed("docs/guide")]},
        {"API": ["reference/index.md", *_listed("website/reference")]},
        {"Examples": ["examples/index.md", *filter(None, examples)]},
        {"Performance": "performance.md"},
        {"Contributing": ["contributing.md", *(f"{name}.md" for name in _INTERNALS), {"Decisions": decisions}]},
        {"Changelog": ["changelog.md", "security.md", "license.md"]},
    ]


def places(menu: Navigation) -> Iterator[str]:
    """The pages that a navigation names."""
    for entry in menu:
        for each in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [each] if isinstance(each, str) else places(each)


def _listed(folder: str) -> list[str]:
    """The pages of a folder that its README links to, in its order."""
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    names = dict.fromkeys(re.findall(r"\]\((\w[\w-]*\.md)", text))
    return [place for name in names if (place := place_on_site(f"{folder}/{name}"))]
