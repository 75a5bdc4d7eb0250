"""The table of docs/guide/servers.md: run the tests of every server, and write what each of them found.

    python -m tests.every_server.table

A column is a test with the fixture ``server``, a row is a server. If a test fails, nothing is written. With
``--collect``, no test runs: the tests of each server are printed as JSON.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.every_server.conftest import REAL

FOLDER = Path(__file__).parent
PAGE = FOLDER.parents[1] / "docs/guide/servers.md"
BEGIN, END = "<!-- table: python -m tests.every_server.table -->\n", "<!-- /table -->\n"
NOT_TRIED = "not tried"
# By the fixture's parameter, the name and the heading below which the page describes it, as in the order of the page.
SERVERS = {
    "AwsLike": ("Amazon S3", "amazon-s3"),
    "Express": ("S3 Express One Zone", "s3-express-one-zone"),
    "Minio": ("MinIO", "minio"),
    "OldMinio": ("MinIO before 2025", "minio"),
    "R2": ("Cloudflare R2", "cloudflare-r2"),
    "Gcs": ("Google Cloud Storage", "google-cloud-storage"),
    "Backblaze": ("Backblaze B2", "backblaze-b2"),
    "Ceph16": ("Ceph 16", "ceph"),
    "Swift": ("OpenStack Swift", "openstack-swift"),
    "RustFs": ("RustFS", "rustfs"),
    "S3rver": ("s3rver", "s3rver"),
    "rclone": ("rclone", "rclone-and-moto"),
    "moto": ("moto", "rclone-and-moto"),
}
FEATURES = {
    "test_what_was_written_is_read": "write, read",
    "test_a_growing_object_is_written_and_read_in_pieces": "stream, seek",
    "test_an_archive_is_read_from_its_end": "read from the end",
    "test_objects_are_listed_copied_and_deleted": "list, copy, delete",
    "test_many_objects_are_deleted_together": "delete many",
    "test_an_aborted_upload_leaves_nothing": "abort",
    "test_create_only_refuses_an_object_that_is_there": "`overwrite=False`",
    "test_one_of_two_writers_succeeds": "`overwrite=False`, two writers",
    "test_required_checksums_are_present_or_it_is_an_error": '`checksum="required"`',
    "test_torch_saves_and_loads": "`torch.save`, `torch.load`",
    "test_a_distributed_checkpoint_is_saved_and_loaded": "distributed checkpoint",
    "test_safetensors_are_saved_and_loaded": "safetensors",
    "test_the_manager_saves_loads_verifies_and_cleans": "manager, `clean`",
}


class Case(NamedTuple):
    server: str
    test: str


class Outcomes:
    """A pytest plugin. Keeps the tests of servers, and of each what it said and why.

    Attributes:
        cases: the tests, by their node's id. There may be several of one case, with other parameters.
        found: of each case, the word and the reason of each test that passed. A reason is empty if it "works".
    """

    def __init__(self) -> None:
        self.cases: dict[str, Case] = {}
        self.found: dict[Case, list[tuple[str, str]]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            if isinstance(item, pytest.Function) and "server" in parameters:
                self.cases[item.nodeid] = Case(parameters["server"], item.originalname)
        items[:] = [item for item in items if item.nodeid in self.cases]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            limits: list[Any] = [value for name, value in report.user_properties if name == "limit"]
            self.found.setdefault(self.cases[report.nodeid], []).extend(limits or [("works", "")])

    def cell(self, case: Case) -> str:
        """What all tests of a case say together."""
        words = {word for word, _ in self.found.get(case, [])}
        return "in part" if len(words) > 1 else next(iter(words), NOT_TRIED)

    def table(self) -> str:
        """The table, and below it the reasons."""
        lines = ["| server | tests run against | " + " | ".join(FEATURES.values()) + " |"]
        lines.append("|---" * (2 + len(FEATURES)) + "|")
        tried = {case.server for case in self.found}
        reasons: dict[tuple[str, str, str], list[str]] = {}
        for server, (name, anchor) in SERVERS.items():
            kind = "itself" if server in REAL else "a stand-in" if server in tried else "nothing"
            cells = [self.cell(Case(server, test)) for test in FEATURES]
            lines.append(f"| [{name}](#{anchor}) | {kind} | " + " | ".join(cells) + " |")
            for test, feature in FEATURES.items():
                for _, reason in dict.fromkeys(self.found.get(Case(server, test), [])):
                    if reason:
                        reasons.setdefault((name, self.cell(Case(server, test)), reason), []).append(feature)
        notes = [f"- **{name}**, {'; '.join(of)}: {word}; {why}" for (name, word, why), of in reasons.items()]
        return "\n".join([*lines, "", *notes, ""])


def written(page: str, table: str) -> str:
    """A page with another table between its markers."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


def main(arguments: list[str]) -> int:
    outcomes = Outcomes()
    options = ["-q", "-p", "no:cacheprovider", str(FOLDER)]
    if arguments == ["--collect"]:
        with contextlib.redirect_stdout(sys.stderr):
            code = pytest.main(["--collect-only", *options], plugins=[outcomes])
        print(json.dumps(sorted(set(outcomes.cases.values()))))
        return code
    code = pytest.main(options, plugins=[outcomes])
    if code == 0:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), outcomes.table()), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
