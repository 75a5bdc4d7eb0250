"""docs/internals/map.md: its picture names each module once, and what its table and its paths name is there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from tests.docs.pages import INTERNALS, ROOT

_MAP = INTERNALS["map"]
_SOURCE = ROOT / "src/s3torchconnector"
_PACKAGES = ("s3torchconnector/", "s3torchconnectorclient/")


def _pictured() -> list[Path]:
    """The files that the picture of the layers names, in its order."""
    [picture] = [block.text for block in _MAP.blocks("text") if "── " in block.text]
    found, folder = [], _SOURCE
    for line in picture.splitlines():
        row = re.match(r"(\S*) +((?:\w+, )*\w+) {2,}\S", line)
        if row is None:
            assert line.startswith("── "), line
            continue
        if row[1]:
            assert row[1].endswith("/"), line
            folder = (_SOURCE.parent if row[1] in _PACKAGES else _SOURCE) / row[1]
        found += [folder / f"{name}.py" for name in row[2].split(", ")]
    return found


def test_the_picture_names_each_module_once() -> None:
    pictured = _pictured()
    assert [path for path, count in Counter(pictured).items() if count > 1] == []
    modules = {path for path in (ROOT / "src").rglob("*.py") if path.name != "__init__.py"}
    assert sorted(modules - set(pictured)) == []
    assert sorted(set(pictured) - modules) == []


def test_the_files_that_the_text_names_are_there() -> None:
    named = set(re.findall(r"[\w/]+/\w+\.(?:py|md)\b", _MAP.text))
    assert len(named) > 50
    assert [name for name in named if not any((root / name).exists() for root in (_SOURCE, ROOT))] == []


def test_each_file_of_the_table_has_what_decides_it() -> None:
    rows = _MAP.rows("Where to change what")
    assert len(rows) > 20
    for change, files, deciding in rows:
        sources = [(_SOURCE / name).read_text(encoding="utf-8") for name in re.findall(r"`([\w/]+\.py)`", files)]
        names = [name for name in re.findall(r"`([^`]+)`", deciding) if not name.startswith("make ")]
        assert sources, change
        assert names, change
        assert [name for name in names if not any(re.search(rf"\b{name}\b", source) for source in sources)] == []
