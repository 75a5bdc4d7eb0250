"""The site: its links and names, and how its pages look in a real browser, on a telephone, light and dark."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from playwright.sync_api import Browser, Page, TimeoutError, expect

from tests.docs.browser import browser, served
from tests.docs.pages import ROOT
from tests.public_modules import public_modules
from website import architecture_figure
from website.building import build, render
from website.docstrings import to_markdown
from website.staging import SiteError, page, write_settings

# Building and visiting use both cores, and others may, too.
pytestmark = pytest.mark.timeout(400)
_PATIENCE = 120_000  # milliseconds
_SOON = 5_000  # milliseconds

_ONE_OF_EACH = ["index.html", "architecture.html", "performance.html", "guide/datasets.html", "reference/client.html",
                "examples/train_digits.html"]  # fmt: skip
_TELEPHONE = {"width": 360, "height": 780}
# What is wider than the screen though nothing scrolls it, and what is left of Markdown or docstrings outside of code.
_LOOK = r"""async () => {
  await new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))
  const article = document.querySelector("article")
  const scrolled = e => e && (["auto", "scroll"].includes(getComputedStyle(e).overflowX) || scrolled(e.parentElement))
  const text = article.cloneNode(true)
  text.querySelectorAll("pre, code").forEach(e => e.remove())
  return {
    anchors: [...document.querySelectorAll("[id]")].map(e => e.id),
    links: [...document.querySelectorAll("a[href]")].map(e => e.href),
    tooWide: [...article.querySelectorAll("*")]
      .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !scrolled(e.parentElement))
      .map(e => e.outerHTML.slice(0, 120)),
    width: document.documentElement.scrollWidth,
    raw: text.textContent.match(/``|:::|(?<!\w)\*\*\w|\]\(|^#+ |\b(Args|Example):|>>> /gm) || [],
    background: getComputedStyle(document.body).backgroundColor,
  }
}"""


@dataclass
class Visit:
    """What a browser showed of one page."""

    anchors: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    brightness: dict[str, int] = field(default_factory=dict)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built strictly."""
    return build(tmp_path_factory.mktemp("site")).parent


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as chromium:
        yield chromium


def _visited(site: Path, chromium: Browser, pages: Sequence[str], *, follow: bool = False) -> dict[str, Visit]:
    """Visit pages, and those that they lead to: all in one tab, since a tab is a process with caches of its own."""
    with served(site) as root, chromium.new_context(viewport=_TELEPHONE) as context, context.new_page() as tab:
        context.set_default_timeout(_PATIENCE)
        seen: dict[str, Visit] = {}
        waiting = list(pages)
        while waiting:
            path = waiting.pop()
            if path not in seen:
                seen[path] = _visit(tab, root, path)
                waiting += [urldefrag(link).url for link in seen[path].links if follow]
        return seen


def _visit(tab: Page, root: str, path: str) -> Visit:
    visit = Visit()
    note = visit.errors.append
    heard: dict[Any, Callable[[Any], object]] = {
        "console": lambda message: note(f"console: {message.text}"),
        "pageerror": lambda error: note(f"script: {error}"),
        "requestfailed": lambda request: note(f"failed: {request.url}"),
        "response": lambda response: response.status in (200, 304) or note(f"{response.status}: {response.url}"),
        "request": lambda request: request.url.startswith(root) or note(f"elsewhere: {request.url}"),
    }
    for event, hear in heard.items():
        tab.on(event, hear)
    tab.emulate_media(color_scheme="light")
    tab.goto(root + path)
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        found = tab.evaluate(_LOOK)
        visit.anchors |= set(found["anchors"])
        visit.links |= {link.removeprefix(root) for link in found["links"] if link.startswith(root)}
        visit.errors += [f"{scheme}, too wide: {each}" for each in found["tooWide"]]
        visit.errors += [f"{scheme}, page of {found['width']} px"] if found["width"] > _TELEPHONE["width"] else []
        visit.errors += [f"not rendered: {each}" for each in found["raw"]]
        visit.brightness[scheme] = sum(map(int, re.findall(r"\d+", found["background"])[:3])) // 3
    for event, hear in heard.items():
        tab.remove_listener(event, hear)
    tab.goto("about:blank")  # what this page still asks for fails now, and is no error of the next page
    return visit


def _assert_fine(visits: dict[str, Visit]) -> None:
    """No error, nothing from elsewhere, no scrolling sideways; and as light or dark as the system."""
    assert {path: visit.errors for path, visit in visits.items() if visit.errors} == {}
    assert min(visit.brightness["light"] for visit in visits.values()) > 230
    assert max(visit.brightness["dark"] for visit in visits.values()) < 50


def test_pages_of_each_kind_are_fine_on_a_telephone(site: Path, chromium: Browser) -> None:
    _assert_fine(_visited(site, chromium, _ONE_OF_EACH))


@pytest.mark.slow
def test_every_page_is_fine_on_a_telephone_and_links_lead_to_it(site: Path, chromium: Browser) -> None:
    visits = _visited(site, chromium, ["index.html"], follow=True)
    _assert_fine(visits)
    assert set(visits) == _pages(site)
    anchors = {f"{path}#{anchor}" for path, visit in visits.items() for anchor in visit.anchors}
    assert {
        (path, link) for path, visit in visits.items() for link in visit.links - {*visits} if link not in anchors
    } == set()


@pytest.mark.parametrize("opened", ["from a server", "from a disk"])
def test_search_finds_a_class(opened: str, site: Path, chromium: Browser) -> None:
    with served(site) as root, chromium.new_page() as tab:
        tab.goto(root if opened == "from a server" else f"{site.as_uri()}/guide/errors.html")
        box = tab.get_by_role("dialog", name="Search").get_by_role("textbox").or_(tab.get_by_role("combobox")).first
        for _ in range(_PATIENCE // _SOON):  # on a busy machine, the page may not respond to it at once
            tab.get_by_role("button", name="Search").click(timeout=_PATIENCE)
            with contextlib.suppress(TimeoutError):
                box.wait_for(timeout=_SOON)
                break
        box.fill("S3CheckpointManager", timeout=_SOON)
        expect(tab.get_by_role("option").first).to_be_visible(timeout=_PATIENCE)


class _Html(HTMLParser):
    """The anchors of a page, and where its links lead, as paths from the root of the site."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self._base = f"http://site/{path}"
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors.add(values.get("id") or "")
        target = urljoin(self._base, values.get("href" if tag in ("a", "link") else "src") or "")
        if target.startswith("http://site/"):
            self.links.add(unquote(target.removeprefix("http://site/")))


def _pages(site: Path) -> set[str]:
    return {file.relative_to(site).as_posix() for file in site.rglob("*.html")} - {"404.html"}


def test_links_lead_to_files_and_anchors_of_the_site(site: Path) -> None:
    parsed = {path: _Html(path, (site / path).read_text(encoding="utf-8")) for path in _pages(site)}
    links = {(path, *link.partition("#")[::2]) for path, html in parsed.items() for link in html.links}
    assert {(path, file) for path, file, _ in links if not (site / file).is_file()} == set()
    assert {link for link in links if link[2] and link[2] not in parsed[link[1]].anchors} == set()
    assert {file for path, file, _ in links if path != file} >= set(parsed)


def test_the_reference_has_every_public_name(site: Path) -> None:
    """Each class, function and constant, with its public methods and properties, or those with its base class."""
    public_modules()  # imports them
    texts = [file.read_text(encoding="utf-8") for file in (site / "reference").glob("*.html")]
    anchors = set().union(*(_Html("", text).anchors for text in texts))
    described = {id(value): anchor for anchor in anchors if (value := _value(anchor)) is not None}
    missing = []
    for path, members in _public_names():
        value = _value(path)
        if path not in anchors and id(value) not in described:
            missing.append(path)
        bases = [described[id(base)] for base in getattr(value, "__mro__", []) if id(base) in described]
        missing += [f"{path}.{each}" for each in members if not anchors & {f"{base}.{each}" for base in bases}]
    assert missing == [], "name each class, function and constant after ::: on a page of website/reference"


def _public_names() -> Iterator[tuple[str, list[str]]]:
    """What tests/public_surface.txt says: each name, and if it is a class, its methods and properties."""
    for paragraph in (ROOT / "tests/public_surface.txt").read_text(encoding="utf-8").split("\n\n"):
        module, _, names = paragraph.partition("\n")
        for text in re.split(r"^    (?=\w)", names, flags=re.MULTILINE)[1:]:
            [name] = re.findall(r"^(?:class )?(\w+)", text)
            members = re.findall(r"^        (?:classmethod |staticmethod )?(\w+)(?:\(|: property)", text, re.MULTILINE)
            yield f"{module}.{name}", [member for member in members if not member.startswith("_")]


def _value(path: str) -> Any:
    """What this path names, if its module is imported; else None."""
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


def test_broken_links_and_names_break_the_build(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    text = "# Title\n\n[a](index.md#no) [b](no.md) [c][s3torchconnector.No] [d](#title)\n"
    (tmp_path / "site/index.md").write_text(text)
    write_settings(tmp_path, ["index.md"])
    with pytest.raises(SiteError, match=r"(?s)index\.md:3:.*\n3 issues found\s*$"):
        render(tmp_path)


def test_a_link_to_a_file_that_is_not_on_the_site_names_both() -> None:
    with pytest.raises(
        SiteError, match=r"docs/guide/errors\.md links to docs/guide/nowhere\.md, which is not on the site"
    ):
        page("docs/guide/errors.md", "See [here](nowhere.md#there).")


def test_links_of_files_lead_from_page_to_page() -> None:
    text = "[a](docs/guide/README.md) [b](LICENSE#x) [c](#d) [e](https://a/b)\n```python\n[f](g.md)\n```\n"
    assert page("docs/guide/errors.md", text.replace("docs/", "../").replace("LICENSE", "../../LICENSE")) == (
        "[a](index.md) [b](../license.md#x) [c](#d) [e](https://a/b)\n```python\n[f](g.md)\n```\n"
    )


def test_the_picture_of_the_architecture_is_what_its_source_draws() -> None:
    stored = architecture_figure.PICTURE.read_text(encoding="utf-8")
    assert stored == architecture_figure.svg(), "run: python -m website.architecture_figure"


def test_docstrings_become_markdown() -> None:
    docstring = (
        "``Known`` and ``unknown``, at most::\n\n    x\n\n"
        "Args:\n    a, b: one\n        text.\n    c: d, e: f.\n\nExample:\n    >>> 1"
    )
    text = to_markdown(docstring, {"Known": "package.Known"})
    assert text == (
        "[`Known`][package.Known] and `unknown`, at most:\n\n    x\n\n"
        "Args:\n    a: one\n        text.\n    b: one\n        text.\n    c: d, e: f.\n\nExamples:\n    >>> 1"
    )
