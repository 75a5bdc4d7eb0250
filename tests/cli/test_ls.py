"""``s3torch ls``, and what all commands share: options, exit codes, pipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime

import pytest

from s3torchconnector._cli._app import COMMANDS
from s3torchconnector.testing import S3Server
from tests.cli.support import call, s3torch

_SECONDS = 1_700_000_000
_TIME = str(datetime.fromtimestamp(_SECONDS))  # in the time zone of this machine


@pytest.fixture
def tree(s3_server: S3Server, bucket: str) -> str:
    """Objects ``a/1``, ``a/x/2``, ``ab`` and ``b``, all changed at ``_SECONDS``."""
    for name, size in (("a/1", 5), ("a/x/2", 12_345), ("ab", 2048), ("b", 1)):
        path = s3_server.folder / bucket / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(bytes(size))
        os.utime(path, (_SECONDS, _SECONDS))
    return bucket


def _lines(*arguments: str) -> list[str]:
    done = call("ls", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_one_level_is_listed_as_aws_does(tree: str) -> None:
    assert _lines(f"s3://{tree}/a") == [
        "                           PRE a/",
        f"{_TIME}       2048 ab",
    ]
    assert _lines(f"s3://{tree}/a/") == [
        "                           PRE x/",
        f"{_TIME}          5 1",
    ]


def test_everything_is_listed_with_recursive(tree: str) -> None:
    assert _lines(f"s3://{tree}/a", "--recursive") == [
        f"{_TIME}          5 a/1",
        f"{_TIME}      12345 a/x/2",
        f"{_TIME}       2048 ab",
    ]


def test_sizes_can_be_read_and_added_up(tree: str) -> None:
    lines = _lines(f"s3://{tree}/", "--recursive", "-h", "--summarize")
    assert [line[20:30].strip() for line in lines[:4]] == ["5 B", "12.1 KiB", "2.0 KiB", "1 B"]
    assert lines[4:] == ["", "Total Objects: 4", "   Total Size: 14.1 KiB"]


def test_json_is_one_document_a_line(tree: str) -> None:
    folder, listed, totals = map(json.loads, _lines(f"s3://{tree}/a", "--json", "--summarize"))
    assert folder == {"prefix": f"s3://{tree}/a/"}
    assert (listed["uri"], listed["size"]) == (f"s3://{tree}/ab", 2048)
    assert listed["last_modified"] == "2023-11-14T22:13:20+00:00"
    assert len(listed["etag"]) == 32
    assert totals == {"objects": 1, "bytes": 2048}


def test_nothing_is_exit_code_1_but_for_an_empty_bucket(s3_server: S3Server, bucket: str) -> None:
    for options in ([], ["--recursive"], ["--json"]):
        done = call("ls", f"s3://{bucket}/none", *options)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"no object whose key begins with s3://{bucket}/none" in done.stderr
    assert call("ls", f"s3://{bucket}").returncode == 0


def test_a_key_cannot_break_a_line_or_command_a_terminal(s3_server: S3Server, bucket: str) -> None:
    (s3_server.folder / bucket / "a\u202eb").touch()  # writes from right to left
    (s3_server.folder / bucket / "ünï").touch()
    lines = _lines(f"s3://{bucket}/")
    assert [line[31:] for line in lines] == [r"a\u202eb", "ünï"]


def test_the_output_of_a_process_is_the_same(tree: str) -> None:
    done = s3torch("ls", f"s3://{tree}/a")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == call("ls", f"s3://{tree}/a").stdout


def test_an_error_of_s3_is_one_line_and_exit_code_1(s3_server: S3Server) -> None:
    done = call("ls", "s3://there-is-none/")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("s3torch: ")
    assert "NoSuchBucket" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_wrong_usage_is_exit_code_2() -> None:
    for arguments in (["ls"], ["ls", "not-a-uri"], ["no-command"], ["ls", "--no-option", "s3://bucket"]):
        done = call(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert "Traceback" not in done.stderr


def test_only_the_command_that_is_called_is_imported() -> None:
    """Which halves the time that it takes to begin."""
    program = "import sys; from s3torchconnector._cli import main\ntry: main()\nfinally: print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program, "ls", "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    modules = {name.partition(".")[2] for name in done.stdout.split() if name.startswith("s3torchconnector._cli.")}
    assert "_cli._ls" in modules
    assert modules.isdisjoint({"_cli._cp", "_cli._bench", "_cli._doctor", "_cli._inspect"})


def test_all_commands_are_named_by_help_and_after_a_mistake() -> None:
    done = s3torch("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f" {name} " in done.stdout for name in COMMANDS)
    assert "No such command 'lss'" in s3torch("lss").stderr


def test_help_names_values_as_people_do_and_breaks_lines_where_the_terminal_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    commands = [[name] for name in COMMANDS if name not in ("checkpoints", "manifest")]
    commands += [["checkpoints", name] for name in ("list", "verify", "clean", "delete")]
    commands += [["manifest", name] for name in ("create", "info", "diff", "verify")]
    texts = {" ".join(command): call(*command, "--help").stdout for command in commands}
    assert all("S3_URI" in text or "SOURCE" in text for text in texts.values())
    assert {name for name, text in texts.items() if "<" in text or "{" in text} == set()
    assert "Usage: s3torch cp [OPTIONS] SOURCE... DESTINATION " in texts["cp"]
    assert "Usage: s3torch rm [OPTIONS] S3_URI... " in texts["rm"]
    assert "--region                 REGION " in texts["rm"]
    assert 'one line, "PRE folder/", unless' in texts["ls"]
    assert "tar, parquet, mds" in " ".join(texts["manifest create"].replace("│", " ").split())


def test_a_reader_that_ends_early_is_no_error(s3_server: S3Server, bucket: str) -> None:
    folder = s3_server.folder / bucket
    for number in range(3_000):  # more than fits into a pipe
        (folder / f"{number:04d}-{'x' * 60}").touch()
    command = [sys.executable, "-m", "s3torchconnector", "ls", f"s3://{bucket}/"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.readline()
        listing.stdout.close()
        assert listing.stderr.read() == ""
        assert listing.wait(60) == 141


def test_a_closed_stream_is_no_traceback(s3_server: S3Server, bucket: str) -> None:
    (s3_server.folder / bucket / "key").write_bytes(b"data")
    uri = f"s3://{bucket}/key"
    for command, code in ((f"ls {uri} >&-", 1), (f"cat {uri} >&-", 1), (f"ls {uri} 2>&-", 0), (f"cp - {uri} <&-", 1)):
        line = f"{sys.executable} -m s3torchconnector {command}"
        done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert (s3_server.folder / bucket / "key").read_bytes() == b"data"  # and not replaced by nothing


_INTERRUPTED_IMPORT = """
import sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder)
from s3torchconnector._cli import main
main()
"""


def test_ctrl_c_while_it_starts_is_no_traceback() -> None:
    command = [sys.executable, "-c", _INTERRUPTED_IMPORT, "ls"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
