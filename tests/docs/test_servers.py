"""docs/guide/servers.md: its table has the servers and features of tests/every_server, and names their sources."""

from __future__ import annotations

import ast
import json
import re

from tests.docs.pages import GUIDE, ROOT
from tests.every_server.table import BEGIN, END, FEATURES, NOT_TRIED, SERVERS
from tests.servers.warm import WarmPython

_PAGE = GUIDE["servers"]
_TABLE = _PAGE.text.partition(BEGIN)[2].partition(END)[0]
_ADVICE = "run python -m tests.every_server.table"


def _rows() -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in _TABLE.splitlines() if line.startswith("| ")]


def test_the_table_has_the_servers_and_features_of_the_tests(warm_python: WarmPython) -> None:
    done = warm_python.run("-m", "tests.every_server.table", "--collect", seconds=100, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    tested = {(server, test) for server, test in json.loads(done.stdout)}
    assert {test for _, test in tested} == set(FEATURES), "name the column of each test in tests/every_server/table.py"
    assert {server for server, _ in tested} == set(SERVERS) - {"Swift"}
    head, *rows = _rows()
    assert head[2:] == list(FEATURES.values()), _ADVICE
    assert [row[0] for row in rows] == [f"[{name}](#{anchor})" for name, anchor in SERVERS.values()], _ADVICE
    tried = {
        (server, test)
        for server, row in zip(SERVERS, rows, strict=True)
        for test, cell in zip(FEATURES, row[2:], strict=True)
        if cell != NOT_TRIED
    }
    assert tried == tested, _ADVICE


def test_the_table_has_the_limits_of_the_tests() -> None:
    calls = [
        node
        for path in (ROOT / "tests/every_server").glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "limit"
    ]
    assert len(calls) >= 5
    limits = {ast.literal_eval(call.args[1]) for call in calls}
    notes = re.findall(r"^- .*: (?:in part|by setting|refused|ignored); (.*)", _TABLE, re.MULTILINE)
    assert set(notes) == limits, _ADVICE


def test_rules_have_the_sources_that_the_stand_ins_name() -> None:
    stand_ins = "".join(path.read_text("utf-8") for path in (ROOT / "tests/servers/stand_ins").glob("*.py"))
    sources = re.findall(r"\]\((https://[^)]*)\)", _PAGE.section("Server by server"))
    assert len(sources) >= 8
    assert [source for source in sources if source not in stand_ins] == []


def test_each_server_has_lines_to_copy() -> None:
    """Amazon's need no setting, and Swift has those of Ceph."""
    for name, _ in SERVERS.values():
        if name.startswith(("Amazon", "S3 Express", "OpenStack", "MinIO before")):
            continue
        title = {"rclone": "rclone and moto", "moto": "rclone and moto", "Ceph 16": "Ceph"}.get(name, name)
        section = _PAGE.section(title)
        assert "\n```" in section, title
        assert "endpoint=" in section or "AWS_ENDPOINT_URL_S3=" in section, title
