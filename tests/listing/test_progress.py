"""A long listing shows its progress on a terminal; nothing else is ever written to stderr."""

from __future__ import annotations

import io
import math
import re
import sys
from collections.abc import Iterator

import pytest
from tqdm import tqdm

from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer.listing import _progress
from tests.reading.support import client_of
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.scripted import ScriptedServer

KEYS = [f"some/prefix/{number:03}" for number in range(300)]


class Terminal(io.StringIO):
    """What a program writes to stderr, and whether that is a terminal."""

    def __init__(self, is_terminal: bool = True) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def shown(self) -> list[str]:
        """One after the other what could be seen, in a line that is written over and over."""
        return [line for line in re.split("[\r\n]", self.getvalue()) if line.strip()]

    def is_cleared(self) -> bool:
        """Whether the line was written over with blanks, and the cursor is at its beginning."""
        return re.search("\r *\r$", self.getvalue()) is not None


def page(request: ReceivedRequest) -> bytes:
    """A hundred keys."""
    after = request.query.get("continuation-token", request.query.get("start-after", ""))
    rest = [key for key in KEYS if key > after]
    facts = "<Size>1</Size><ETag>e</ETag><LastModified>2026-01-01T00:00:00Z</LastModified>"
    entries = "".join(f"<Contents><Key>{key}</Key>{facts}</Contents>" for key in rest[:100])
    more = "false</IsTruncated>"
    if rest[100:]:
        more = f"true</IsTruncated><NextContinuationToken>{rest[99]}</NextContinuationToken>"
    return response(200, f"<ListBucketResult><IsTruncated>{more}{entries}</ListBucketResult>".encode())


@pytest.fixture
def client() -> Iterator[S3Client]:
    with ScriptedServer(handler=page) as server, client_of(server.endpoint, unsigned=True) as client:
        yield client


def listed(client: S3Client) -> list[str]:
    return [key for page in client.list_all("bucket", "some/prefix/") for key in page.keys]


def test_a_long_listing_shows_its_keys_and_clears_the_line(client: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(_progress, "_SHOWN_AFTER", -1.0)
    assert listed(client) == KEYS
    first = terminal.shown()[0]
    assert re.match(r"listing s3://bucket/some/prefix/: (100|200|300) keys \[", first), first
    assert terminal.is_cleared()


def test_it_counts_the_pages_and_clears_if_they_are_abandoned(
    client: S3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(_progress, "_SHOWN_AFTER", -1.0)
    pages = client.list_all("bucket", "some/prefix/")
    assert len(next(pages)) == 100
    assert terminal.shown()[-1].startswith("listing s3://bucket/some/prefix/: 100 keys [")
    assert len(next(pages)) == 100
    assert [bar.n for bar in tqdm._instances] == [200]  # what is seen is renewed ten times a second
    pages.close()  # type: ignore[attr-defined]
    assert terminal.is_cleared()


def test_a_failed_listing_clears_the_line_before_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(_progress, "_SHOWN_AFTER", -1.0)

    def first_page_only(request: ReceivedRequest) -> bytes:
        return s3_error(403, "AccessDenied") if "start-after" in request.query else page(request)

    with ScriptedServer(handler=first_page_only) as server, client_of(server.endpoint, unsigned=True) as client:
        with pytest.raises(PermissionError) as caught:
            listed(client)
        assert terminal.shown()
        assert terminal.is_cleared()
        assert caught.value.__traceback__ is not None  # which keeps all that the listing had


def test_a_short_listing_shows_nothing(client: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(_progress, "_SHOWN_AFTER", math.inf)
    assert listed(client) == KEYS
    assert terminal.getvalue() == ""


def test_nothing_is_written_if_stderr_is_no_terminal(client: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Terminal(is_terminal=False)
    monkeypatch.setattr(sys, "stderr", file)
    monkeypatch.setattr(_progress, "_SHOWN_AFTER", -1.0)
    assert listed(client) == KEYS
    assert file.getvalue() == ""


def test_a_program_may_have_no_stderr(client: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(_progress, "_SHOWN_AFTER", -1.0)
    assert listed(client) == KEYS
