"""The pages as Zensical reads them: files of the repository, with links that lead to pages instead of files."""

from __future__ import annotations

import ast
import json
import posixpath
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from website.pages import ROOT, Navigation, navigation, place_on_site, places, sources

_ALONE_IN_THEIR_MENU = ("README.md", "docs/performance.md")
_FENCE = re.compile(r"^(`{3,})[^\n]*\n.*?^\1$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(#[^)\s]*)?\)")


class SiteError(Exception):
    """The site cannot be built; the text says which file to change."""


def stage(folder: Path) -> None:
    """Write all pages, pictures and the configuration: ``folder/mkdocs.yml`` and ``folder/site``."""
    site = folder / "site"
    shutil.rmtree(site, ignore_errors=True)
    for source in sources():
        _write(site / _place(source), page(source, (ROOT / source).read_text(encoding="utf-8")))
    _write(site / "examples/index.md", examples_page())
    shutil.copytree(ROOT / "docs/images", site / "images")
    shutil.copytree(ROOT / "website/assets", site / "assets")
    menu = navigation()
    written = {path.relative_to(site).as_posix() for path in site.rglob("*.md")}
    if without := sorted(written - set(places(menu))):
        raise SiteError(f"no menu leads to {', '.join(without)}: name them in the README.md of their folder")
    write_settings(folder, menu)


def write_settings(folder: Path, menu: Navigation) -> None:
    """Write the configuration of a site whose pages are in ``folder/site``."""
    settings = {"INHERIT": str(ROOT / "website/mkdocs.yml"), "docs_dir": "site", "site_dir": "docs", "nav": menu}
    _write(folder / "mkdocs.yml", json.dumps(settings, indent=2))  # JSON is YAML


def page(source: str, text: str) -> str:
    """The Markdown of the page that is made of a file."""
    if _is_example(source):
        return _example(source, text)
    if source == "LICENSE":
        return f"# License\n\n```text\n{text}```\n"
    text = _outside_fences(text, lambda prose: _LINK.sub(lambda link: f"]({_target(source, link)})", prose))
    return f"---\nhide: [navigation]\n---\n\n{text}" if source in _ALONE_IN_THEIR_MENU else text


def examples_page() -> str:
    """A page that lists the examples, each with the first paragraph of its docstring."""
    head = ["# Examples", "", "Programs to read and to run. `make examples` runs all of them.", ""]
    return (
        "\n".join([*head, "| program | what it does |", "|---|---|", *map(_row, filter(_is_example, sources()))]) + "\n"
    )


def _is_example(source: str) -> bool:
    return source.endswith(".py")


def _row(source: str) -> str:
    first, _, _ = _docstring(source).partition("\n\n")
    return f"| [{Path(source).name}]({Path(source).stem}.md) | {' '.join(first.split()).replace('``', '`')} |"


def _example(source: str, text: str) -> str:
    docstring = _docstring(source)
    code = text.removeprefix(f'"""{docstring}"""').lstrip("\n")
    return f"# {Path(source).name}\n\n{docstring}\n\n```python\n{code}```\n"


def _docstring(source: str) -> str:
    tree = ast.parse((ROOT / source).read_text(encoding="utf-8"))
    return ast.get_docstring(tree, clean=False) or ""


def _target(source: str, link: re.Match[str]) -> str:
    """Where a link of a file leads on the site."""
    path, anchor = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1])), link[2] or ""
    place = place_on_site(path)
    if place is None or not (ROOT / path).exists():
        raise SiteError(f"{source} links to {path}, which is not on the site: see website/pages.py")
    return posixpath.relpath(place, posixpath.dirname(_place(source)) or ".") + anchor


def _place(source: str) -> str:
    place = place_on_site(source)
    assert place is not None, source
    return place


def _outside_fences(text: str, change: Callable[[str], str]) -> str:
    """The text, changed but for its fenced blocks."""
    changed, end = [], 0
    for fence in _FENCE.finditer(text):
        changed += [change(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*changed, change(text[end:])])


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
