"""The User-Agent header of each class, in the form of AWS SDKs, and the debug log that the environment asks for."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from s3torchconnector import (
    S3Checkpoint,
    S3Client,
    S3Exception,
    S3IterableDataset,
    S3MapDataset,
    S3Reader,
    S3ReaderConstructor,
    _debug_logs,
)
from s3torchconnector._debug_logs import level_of
from s3torchconnector._user_agent import UserAgent
from s3torchconnector.dcp import S3FileSystem, S3StorageReader, S3StorageWriter
from s3torchconnector.lightning import S3LightningCheckpoint
from s3torchconnector.testing import S3Server
from tests.servers.processes import run
from tests.servers.proxy import RecordingProxy

_TOKEN = r"[0-9A-Za-z!$%&'*+.^_`|~,-]+"
_SEQUENTIAL, _RANGED = "md/reader_type#sequential", "md/reader_type#range_based"


def _own(bucket: str, key: str, get_object_info: Any, get_stream: Any) -> S3Reader:
    return S3Reader(bucket, key, get_object_info, get_stream)


def _dataset(kind: Any, **options: Any) -> Callable[[str, str], Any]:
    def use(endpoint: str, uri: str) -> Any:
        return next(iter(kind.from_prefix(f"{uri}/", region="us-east-1", endpoint=endpoint, **options)))

    return use


def _map(**options: Any) -> Callable[[str, str], Any]:
    return lambda endpoint, uri: S3MapDataset.from_prefix(f"{uri}/", region="us-east-1", endpoint=endpoint, **options)[
        0
    ].read()


# Each with the comment that 1.5.0 sends.
_CASES: dict[str, tuple[Callable[[str, str], Any], str | None]] = {
    "S3Client": (lambda endpoint, uri: S3Client("us-east-1", endpoint=endpoint).head_object(uri[5:], "k"), None),
    "S3Checkpoint": (lambda endpoint, uri: S3Checkpoint("us-east-1", endpoint).reader(f"{uri}/k").read(), None),
    "iterable": (_dataset(S3IterableDataset), f"md/dataset#iterable {_SEQUENTIAL}"),
    "iterable, ranges": (
        _dataset(S3IterableDataset, reader_constructor=S3ReaderConstructor.range_based()),
        f"md/dataset#iterable {_RANGED}",
    ),
    "map": (_map(), f"md/dataset#map {_SEQUENTIAL}"),
    "map, dcp": (
        _map(reader_constructor=S3ReaderConstructor.dcp_optimized()), "md/dataset#map md/reader_type#dcp_optimized",
    ),
    "map, own": (_map(reader_constructor=_own), "md/dataset#map md/reader_type#unknown"),
    "S3FileSystem": (
        lambda endpoint, uri: S3FileSystem("us-east-1", endpoint=endpoint).exists(f"{uri}/k"),
        f"dcp; {torch.__version__}; {_SEQUENTIAL}",
    ),
    "S3StorageWriter": (
        lambda endpoint, uri: S3StorageWriter("us-east-1", uri, endpoint=endpoint).fs.exists(f"{uri}/k"),
        f"dcp; {torch.__version__}; {_SEQUENTIAL}",
    ),
    "S3StorageReader": (
        lambda endpoint, uri: S3StorageReader("us-east-1", uri, endpoint=endpoint).read_metadata(),
        f"dcp; {torch.__version__}; md/reader_type#dcp_optimized",
    ),
    "S3StorageReader, sequential": (
        lambda endpoint, uri: S3StorageReader(
            "us-east-1", uri, reader_constructor=S3ReaderConstructor.sequential(), endpoint=endpoint
        ).read_metadata(),
        f"dcp; {torch.__version__}; {_SEQUENTIAL}",
    ),
    "S3LightningCheckpoint": (
        lambda endpoint, uri: S3LightningCheckpoint("us-east-1", endpoint=endpoint).load_checkpoint(f"{uri}/missing"),
        f"lightning; {lightning.__version__}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", _CASES)
def test_each_class_is_named_in_the_header(s3_server: S3Server, bucket: str, proxy: RecordingProxy, name: str) -> None:
    (s3_server.folder / bucket / "k").write_bytes(b"x")
    use, comment = _CASES[name]
    with contextlib.suppress(S3Exception):  # the response does not matter
        use(proxy.endpoint, f"s3://{bucket}")
    [agent] = {exchange.request.headers["user-agent"] for exchange in proxy.exchanges}
    python = ".".join(map(str, sys.version_info[:3]))
    own = rf"s3torchconnector/\S+ ua/2\.1 os/\w+#{_TOKEN} lang/python#{re.escape(python)} md/arch#{_TOKEN}"
    torch_token = re.escape(f"md/pytorch#{torch.__version__}")
    assert re.fullmatch(own + " " + torch_token + (re.escape(f" ({comment})") if comment else ""), agent), agent


def test_a_user_agent_of_the_program() -> None:
    default = UserAgent.get_default_prefix()
    assert S3Client("us-east-1", user_agent=UserAgent(["mine", "1.2"])).user_agent_prefix == f"{default} (mine; 1.2)"
    assert S3Client("us-east-1", user_agent="mine/1.2").user_agent_prefix == f"mine/1.2 {default}"
    with pytest.raises(ValueError, match="user_agent"):
        UserAgent(["a\r\nb: c"])


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("info", logging.INFO), ("TRACE", logging.DEBUG), ("off", logging.CRITICAL + 1), ("", None), ("=", None),
        ("trace,mountpoint_s3_client=warn,awscrt=error", logging.WARNING), ("awscrt=debug", None),
        ("error, s3torchconnector=debug", logging.DEBUG), ("mountpoint_s3_client::x=info", logging.INFO),
    ],
)  # fmt: skip
def test_the_level_of_a_filter(text: str, level: int | None) -> None:
    assert level_of(text) == level


def test_threads_that_come_together_write_one_log(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[logging.Handler] = []

    def handler(_: str | None) -> logging.Handler:
        made.append(logging.NullHandler())
        _debug_logs.follow_environment()  # as another thread may at this moment
        return made[-1]

    monkeypatch.setenv(_debug_logs.FILTER, "off,s3torchconnector=error")
    monkeypatch.setattr(_debug_logs, "_first", threading.Lock())
    monkeypatch.setattr(_debug_logs, "_handler", handler)
    log = logging.getLogger("s3torchconnector")
    level = log.level
    try:
        _debug_logs.follow_environment()
        assert log.handlers.count(made[0]) == len(made) == 1
    finally:
        for each in made:
            log.removeHandler(each)
        log.setLevel(level)


_PROGRAM = """
import sys
from s3torchconnector import S3Client
S3Client("us-east-1").head_object(sys.argv[1], "k")
"""


@pytest.mark.parametrize("to_folder", [False, True])
def test_the_environment_asks_for_a_debug_log(
    s3_server: S3Server, bucket: str, tmp_path: Path, to_folder: bool
) -> None:
    (s3_server.folder / bucket / "k").write_bytes(b"x")
    folder = tmp_path / "new" / "logs"
    variables = {**os.environ, "S3_TORCH_CONNECTOR_DEBUG_LOGS": "trace,awscrt=off"}
    if to_folder:
        variables["S3_TORCH_CONNECTOR_LOGS_DIR_PATH"] = str(folder)
    done = run([sys.executable, "-W", "ignore", "-c", _PROGRAM, bucket], 60, env=variables)
    assert done.returncode == 0, done.stderr
    text = done.stdout
    if to_folder:
        assert text == ""
        text = "".join(path.read_text() for path in sorted(folder.iterdir()))
        assert all(
            re.fullmatch(r"s3torchconnectorclient\.log\.\d{4}(-\d\d){3}", path.name) for path in folder.iterdir()
        )
    assert re.search(rf"^\S+T\S+Z DEBUG s3torchconnector\.\S+: HeadObject s3://{bucket}/k ", text, re.MULTILINE), text
