"""What pages and examples import can be imported by a program."""

from __future__ import annotations

import ast
import re

import pytest

import s3torchconnector
from s3torchconnector import dcp, lightning, testing
from tests.docs.pages import PAGES, ROOT, Page

_CODE = [(f"{block.page}:{block.line}", block.text) for page in PAGES for block in page.blocks("python")]
_EXAMPLES = [
    (path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in (ROOT / "examples").glob("*.py")
]


def _imported(code: str) -> list[str]:
    """The dotted names that a program imports of ours, and the attributes that it uses below a module of ours."""
    names: list[str] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{each.name}" for each in node.names]
    return [name for name in names if name.startswith("s3torchconnector")]


def _is_private(name: str) -> bool:
    return any(part.startswith("_") and part != "__version__" for part in name.split("."))


@pytest.mark.parametrize(("place", "code"), [*_CODE, *_EXAMPLES], ids=[place for place, _ in [*_CODE, *_EXAMPLES]])
def test_imports_are_public(place: str, code: str) -> None:
    assert [name for name in _imported(code) if _is_private(name)] == []


def test_a_private_import_is_found() -> None:
    assert _imported("from s3torchconnector._s3client import S3Client") == ["s3torchconnector._s3client.S3Client"]
    assert _is_private("s3torchconnector._s3client.S3Client")
    assert not _is_private("s3torchconnector.dcp.S3FileSystem")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_in_the_text_are_public(page: Page) -> None:
    """But for the old path that the page about migrating names as such."""
    named = re.findall(r"`(s3torchconnector(?:client)?(?:\.\w+)+)`", page.prose)
    private = [name for name in named if _is_private(name)]
    assert private == (["s3torchconnector._s3client"] if page.name.endswith("migrating.md") else [])


def test_each_public_class_has_an_example() -> None:
    code = "".join(text for _, text in _CODE)
    classes = [name for module in (s3torchconnector, lightning, testing) for name in module.__all__ if name[:2] == "S3"]
    classes += [name for name in dcp.__all__ if not name.endswith("Strategy")]
    assert [name for name in classes if not re.search(rf"\b{name}\b", code)] == []
