"""docs/guide/command-line.md: its table of the doctor's checks is that of the code."""

from __future__ import annotations

import re
from pathlib import Path

from s3torchconnector._doctor import _examine
from tests.docs.pages import GUIDE

_SECTION = GUIDE["command-line"].section("doctor")


def test_each_check_is_in_the_table() -> None:
    tables = _examine._CHECKS, _examine._WRITES, _examine._READS, _examine._MORE_WRITES, _examine._LIMITS
    checks = {check.name for table in (*tables, _examine._MEASUREMENT) for check in table}
    _, _, table = _SECTION.partition("| check |")
    cells = [line.split("|")[1] for line in table.splitlines()[2:] if line.startswith("|")]
    assert sorted(re.findall(r"`([^`]+)`", " ".join(cells))) == sorted(checks)


def test_the_sections_that_fixes_name_are_there() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in Path(_examine.__file__).parent.glob("*.py"))
    named = re.findall(r"guide: ([A-Z][a-z]+(?: [a-z]+)*)(?:, ([A-Z][a-zA-Z0-9 ]+))?", source)
    titles = {page.text.partition("\n")[0].removeprefix("# "): page for page in GUIDE.values()}
    assert len(named) > 5
    for page, section in named:
        assert not section or any(
            anchor.startswith(section.lower().replace(" ", "-")) for anchor in titles[page].anchors
        )
