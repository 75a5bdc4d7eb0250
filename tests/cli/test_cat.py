"""``s3torch cat``: bytes in order, ranges, look-ahead, errors."""

from __future__ import annotations

import os

import pytest

from s3torchconnector.testing import S3Server
from tests.cli.support import call, peak_memory
from tests.servers.proxy import RecordingProxy


@pytest.fixture
def letters(s3_server: S3Server, bucket: str) -> str:
    for name, text in (("a", "abcdefghij"), ("b", ""), ("c", "klm\n")):
        (s3_server.folder / bucket / name).write_text(text)
    return f"s3://{bucket}"


def _cat(*arguments: str) -> str:
    done = call("cat", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_objects_are_written_in_the_order_of_the_arguments(letters: str) -> None:
    assert _cat(f"{letters}/c", f"{letters}/b", f"{letters}/a", f"{letters}/c") == "klm\nabcdefghijklm\n"


@pytest.mark.parametrize(
    ("given", "expected"),
    [("0-0", "a"), ("2-4", "cde"), ("bytes=7-", "hij"), ("-3", "hij"), ("-99", "abcdefghij"), ("8-99", "ij")],
)
def test_a_range_has_the_form_of_http(letters: str, given: str, expected: str) -> None:
    assert _cat("--range", given, f"{letters}/a") == expected
    assert _cat(f"--range={given}", f"{letters}/a", f"{letters}/a") == 2 * expected


def test_an_invalid_range_is_wrong_usage(letters: str) -> None:
    for given in ("", "-", "5", "4-3", "a-b", "1-2-3", "0-0,2-3"):
        done = call("cat", f"--range={given}", f"{letters}/a")
        assert (done.returncode, done.stdout) == (2, ""), given
    assert call("cat", letters).returncode == 2


def test_a_range_requests_no_more_than_its_bytes(s3_server: S3Server, bucket: str, proxy: RecordingProxy) -> None:
    content = os.urandom(3_000_000).hex()
    (s3_server.folder / bucket / "large").write_text(content)
    uri, endpoint = f"s3://{bucket}/large", f"--endpoint-url={proxy.endpoint}"
    assert _cat(uri, endpoint, "--range=1000-2500999") == content[1000:2_501_000]
    assert sum(each.body_bytes for each in proxy.of("GET")) == 2_500_000


def test_the_first_object_that_cannot_be_read_ends_the_output(letters: str) -> None:
    done = call("cat", f"{letters}/a", f"{letters}/none", f"{letters}/c")
    assert (done.returncode, done.stdout) == (1, "abcdefghij")
    assert "none" in done.stderr
    assert "NoSuchKey" in done.stderr


def test_an_object_goes_through_a_pipe_in_little_memory(s3_server: S3Server, bucket: str) -> None:
    size = 300_000_000
    with open(s3_server.folder / bucket / "large", "wb") as file:
        file.truncate(size)
    done, peak = peak_memory("cat", f"s3://{bucket}/large")
    assert len(done.stdout) == size
    assert peak < 270_000_000  # 128 MiB of read-ahead, its overdraft, and Python
