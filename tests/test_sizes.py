"""Nothing in the source is longer than a reader keeps in mind."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

_SOURCES = Path(__file__).parents[1] / "src"
_FILES = sorted(path.relative_to(_SOURCES).as_posix() for path in _SOURCES.rglob("*.py"))


@pytest.mark.parametrize("file", _FILES)
def test_files_and_functions_are_short(file: str) -> None:
    text = (_SOURCES / file).read_text(encoding="utf-8")
    assert text.count("\n") <= 300
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {node.name: (node.end_lineno or node.lineno) - node.lineno + 1 for node in functions}
    assert {name: length for name, length in lengths.items() if length > 40} == {}
