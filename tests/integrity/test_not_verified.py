"""What cannot be compared: an error with ``required``, or logged once for each bucket, with the reason."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integrity.flipping import LARGE, OUTDATED, REFUSED, SMALL, FlippedObject, Recorder, outcome, read_in_order
from tests.integrity.support import CRC32, CRC64NVME
from tests.reading.support import MIB, client_of, open_object
from tests.servers.scripted import ScriptedServer

pytestmark = pytest.mark.usefixtures("s3_server")  # for its keys


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("how", ["read", "in pieces"])
def test_unverified_objects_are_logged_once_per_bucket(data: bytes, how: str, caplog: pytest.LogCaptureFixture) -> None:
    obj = FlippedObject(data, [])
    with ScriptedServer(handler=obj) as server, client_of(server.endpoint) as client:
        for key in ("one", "two", "three"):
            reader = open_object(client, "b", key)
            assert (reader.read() if how == "read" else b"".join(iter(lambda: reader.read(MIB), b""))) == data  # noqa: B023
        open_object(client, "c", "one").read()
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 2
    assert told[0].startswith(
        "s3://b/one was read and not verified: the server offers no checksum of the whole object."
    )
    assert told[1].startswith("s3://c/one ")


def test_a_server_that_never_returns_the_checksum_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Silent(FlippedObject):
        def __call__(self, request: Any) -> Any:
            self._head = REFUSED
            return super().__call__(request)

    error, _ = outcome(Silent(LARGE, [CRC64NVME]), read_in_order)
    assert error is None
    assert "s3://b/key was read and not verified: the request for its checksum failed:" in caplog.text
    error, _ = outcome(Silent(LARGE, [CRC64NVME]), read_in_order, checksum="required")
    assert "the request for its checksum failed" in str(error)


def test_a_checksum_of_another_version_is_requested_again() -> None:
    def program(recorder: Recorder) -> None:
        recorder.read_to_end(0)

    obj = FlippedObject(LARGE, [CRC32], head=OUTDATED)
    error, recorder = outcome(obj, program, checksum="required")
    assert error is None
    assert recorder.is_whole


def test_an_object_read_in_too_many_pieces_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3torchconnector._transfer.reading._ledger._MOST_PIECES", 10)

    def program(recorder: Recorder) -> None:
        for start in [*range(0, 100, 2), *range(1, 100, 2)]:
            recorder.seek(start)
            recorder.read(1)

    obj = FlippedObject(SMALL[:100], [CRC64NVME], 5)
    error, _ = outcome(obj, program, "range_based-0", checksum="required")
    assert "more pieces than checksums are kept for" in str(error)


# -- without awscrt ----------------------------------------------------------------------------------------------------

_WITHOUT_AWSCRT = """
import sys
if len(sys.argv) == 1:
    sys.modules["awscrt"] = None
import logging
from s3torchconnector import S3ClientConfig
from s3torchconnector._errors import S3ChecksumError
from s3torchconnector._s3client import S3Client
from tests.servers.http_messages import response
from tests.servers.scripted import ScriptedServer

headers = {"ETag": "one", "Content-Range": "bytes 0-8/9"}
STORED = {"x-amz-checksum-crc32": "y/Q5Jg=="}  # of 123456789
OTHER = {"x-amz-checksum-crc64nvme": "rosUhgp5mIg="}

def read(body, checksums, mode):
    with ScriptedServer(handler=lambda request: response(206, body, headers | checksums)) as server:
        config = S3ClientConfig(unsigned=True, checksum=mode, max_attempts=2)
        with S3Client("us-east-1", endpoint=server.endpoint, s3client_config=config) as client:
            try:
                return client.get_object("b", "key").read().decode()
            except S3ChecksumError as error:
                return str(error)

logging.basicConfig(stream=sys.stdout)
print(read(b"123456789", STORED, "required"))
print(read(b"123456788", STORED, "required"))
print(read(b"123456789", OTHER, "required"))
print(read(b"123456789", OTHER, "when_supported"))
"""


@pytest.mark.parametrize("installed", ["none", "0.20"])
def test_without_awscrt_only_crc32_is_compared(installed: str, tmp_path: Path) -> None:
    """Also with an old one, which another package has brought: it has no CRC64NVME."""
    command, variables = [sys.executable, "-c", _WITHOUT_AWSCRT], dict(os.environ)
    if installed == "0.20":
        command.append(installed)
        (tmp_path / "awscrt").mkdir()
        (tmp_path / "awscrt/__init__.py").touch()
        (tmp_path / "awscrt/checksums.py").write_text("def crc32c(input, previous_crc32c=0): ...\n")
        variables["PYTHONPATH"] = os.pathsep.join([str(tmp_path), variables.get("PYTHONPATH", "")])
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=variables, capture_output=True, text=True, check=False, timeout=60)
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert [lines[0], lines[-1]] == ["123456789", "123456789"]
    assert "bytes 0 to 9 are not those that were stored" in lines[1]
    assert (
        "cannot compute: CRC64NVME (from the checkout, pip install '.[checksums]' adds CRC64NVME and CRC32C)"
        in lines[2]
    )
    assert lines[3].startswith(
        "WARNING:s3torchconnector._transfer.reading._integrity:s3://b/key was read and not verified: "
    )
