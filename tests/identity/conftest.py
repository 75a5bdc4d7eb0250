"""An empty AWS environment, and a scripted HTTP server for the endpoints that provide credentials."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

CONFIGURATION = ("AWS_", "BOTO")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@dataclass
class AwsFiles:
    """The two shared files of AWS tools, not yet written."""

    config: Path
    credentials: Path


@pytest.fixture(autouse=True)
def aws_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AwsFiles:
    """Hide the machine's own settings, and disable the metadata service."""
    for name in os.environ:
        if name.startswith(CONFIGURATION) or name.lower() in PROXIES:
            monkeypatch.delenv(name)
    files = AwsFiles(tmp_path / "config", tmp_path / "credentials")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(files.config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(files.credentials))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return files


@dataclass
class ScriptedServer:
    """Responds to every request with what ``answer(method, path)`` returns; keeps the requests."""

    url: str
    answer: Callable[[str, str], str] = lambda method, path: ""
    requests: list[tuple[str, str, dict[str, str], str]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            scripted.requests.append((self.command, self.path, dict(self.headers), body))
            answer = scripted.answer(self.command, self.path).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST = respond

        def log_message(self, format: str, *args: object) -> None:
            """Keep the tests' output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        scripted = ScriptedServer(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield scripted
        finally:
            http.shutdown()
            thread.join()
