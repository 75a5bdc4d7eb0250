"""docs/guide/command-line.md: its table of the doctor's checks is that of the code."""

from __future__ import annotations

import re

from s3torchconnector._doctor import _examine
from tests.docs.pages import GUIDE

_SECTION = GUIDE["command-line"].section("doctor")


def test_each_check_is_in_the_table() -> None:
    tables = _examine._CHECKS, _examine._WRITES, _examine._READS, _examine._MORE_WRITES, _examine._LIMITS
    checks = {check.name for table in (*tables, _examine._MEASUREMENT) for check in table}
    _, _, table = _SECTION.partition("| check |")
    cells = [line.split("|")[1] for line in table.splitlines()[2:] if line.startswith("|")]
    assert sorted(re.findall(r"`([^`]+)`", " ".join(cells))) == sorted(checks)
