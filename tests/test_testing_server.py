"""``s3torchconnector.testing.S3Server``: serves S3, refuses wrong keys, and leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import botocore.session
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from s3torchconnector import S3Client
from s3torchconnector.testing import S3Server
from s3torchconnector.testing.__main__ import main
from tests.servers.tls import PrivateCA


def botocore_client(server: S3Server, **changes: Any) -> Any:
    settings = {
        "region_name": server.region,
        "endpoint_url": server.endpoint,
        "aws_access_key_id": server.access_key,
        "aws_secret_access_key": server.secret_key,
        "verify": server.ca_bundle,
        "config": Config(retries={"max_attempts": 0}),
    }
    session = botocore.session.Session()
    # Not in Config: the oldest botocore that is allowed sends no checksums, and knows no such argument.
    session.set_config_variable("request_checksum_calculation", "when_required")
    return session.create_client("s3", **{**settings, **changes})


def test_keeps_objects_as_files(s3_server: S3Server, bucket: str) -> None:
    client = botocore_client(s3_server)
    client.put_object(Bucket=bucket, Key="a/b c", Body=b"some bytes")
    assert client.get_object(Bucket=bucket, Key="a/b c")["Body"].read() == b"some bytes"
    assert (s3_server.folder / bucket / "a" / "b c").read_bytes() == b"some bytes"


def test_files_put_into_a_new_bucket_are_objects(s3_server: S3Server, bucket: str) -> None:
    (s3_server.folder / bucket / "key").write_bytes(b"some bytes")
    assert botocore_client(s3_server).head_object(Bucket=bucket, Key="key")["ContentLength"] == 10


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"aws_secret_access_key": "wrong"}, "SignatureDoesNotMatch"),
        ({"aws_access_key_id": "AKIAWRONG"}, "InvalidAccessKeyId"),
    ],
)
def test_refuses_wrong_keys(s3_server: S3Server, bucket: str, changes: dict[str, str], code: str) -> None:
    with pytest.raises(ClientError, match=code):
        botocore_client(s3_server, **changes).list_objects_v2(Bucket=bucket)


def test_serves_tls(s3_server_tls: S3Server) -> None:
    assert s3_server_tls.endpoint.startswith("https://127.0.0.1:")
    s3_server_tls.make_bucket("encrypted")
    client = botocore_client(s3_server_tls)
    client.put_object(Bucket="encrypted", Key="key", Body=b"some bytes")
    assert client.get_object(Bucket="encrypted", Key="key")["Body"].read() == b"some bytes"


def test_stop_removes_a_temporary_folder_but_not_a_given_one(tmp_path: Path) -> None:
    with S3Server() as temporary, S3Server(tmp_path) as given:
        given.make_bucket("kept")
        processes = [psutil.Process(temporary.pid), psutil.Process(given.pid)]
    assert not any(process.is_running() for process in processes)
    assert not temporary.folder.exists()
    assert (tmp_path / "kept").is_dir()


def test_can_be_started_again_but_not_twice() -> None:
    server = S3Server().start()
    try:
        with pytest.raises(RuntimeError, match="running already"):
            server.start()
        server.stop()
        server.stop()
        server.start()
        server.make_bucket("again")
    finally:
        server.stop()


if sys.platform == "linux":  # the only system that can signal the end of a parent process

    def test_ends_with_a_killed_parent(tmp_path: Path) -> None:
        program = "import sys\nfrom s3torchconnector.testing import S3Server\n"
        program += "print(S3Server(sys.argv[1]).start().pid, flush=True)\nsys.stdin.read()"
        command = [sys.executable, "-c", program, str(tmp_path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            server = psutil.Process(int(parent.stdout.readline()))
            assert "rclone" in server.name()
            parent.send_signal(signal.SIGKILL)
        try:
            server.wait(timeout=30)
        finally:
            if server.is_running():
                server.kill()


def _read_by_a_shell(lines: str) -> dict[str, str]:
    """The ``AWS_*`` variables of a shell after these lines."""
    environment = {**os.environ, "AWS_PROFILE": "mine"}
    shown = subprocess.check_output(["sh", "-e"], input=f"{lines}\nenv", env=environment, text=True)
    return dict(line.split("=", 1) for line in shown.splitlines() if line.startswith("AWS_"))


def test_a_server_of_a_terminal_is_found_by_what_it_prints_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-m", "s3torchconnector.testing", "--bucket=data", "--bucket=saves"]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    given: subprocess.Popen[str]
    temporary: subprocess.Popen[str]
    with (
        subprocess.Popen([*command, "--folder", tmp_path / "new/folder"], **options) as given,
        subprocess.Popen(command, **options) as temporary,
    ):
        assert given.stderr is not None
        assert temporary.stderr is not None
        assert temporary.stdout is not None
        try:
            folder = Path(re.findall("serving (.*) at http", temporary.stderr.readline())[0])
            assert given.stderr.readline().startswith(f"serving {tmp_path / 'new/folder'} at http://127.0.0.1:")
            (rclone,) = psutil.Process(given.pid).children()
            rclone.kill()
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                monkeypatch.delenv(name)
            lines = "".join(temporary.stdout.readline() for _ in range(10))
            for name, value in _read_by_a_shell(lines).items():
                monkeypatch.setenv(name, value)
            with S3Client(os.environ["AWS_REGION"]) as client:
                with client.put_object("data", "key") as writer:
                    writer.write(b"some bytes")
                assert client.get_object("data", "key").read() == b"some bytes"
            assert (folder / "data/key").read_bytes() == b"some bytes"
            temporary.terminate()
            temporary.terminate()  # the second one disturbs nothing
            assert (temporary.wait(30), temporary.stderr.read()) == (0, "")
            assert not folder.exists()
            assert given.wait(30) == 1  # its server has ended without being asked to
            assert "the server has ended" in given.stderr.read()
            assert (tmp_path / "new/folder/saves").is_dir()
        finally:
            temporary.kill()
            given.kill()


def test_exported_replaces_the_aws_variables_and_puts_them_back(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    with s3_server.exported():
        assert "AWS_PROFILE" not in os.environ
        assert os.environ["AWS_REGION"] == "us-east-1"
        client = botocore.session.Session().create_client("s3")
        assert client.meta.endpoint_url == s3_server.endpoint
    assert (os.environ["AWS_PROFILE"], os.environ["AWS_REGION"]) == ("mine", "eu-west-1")


def test_says_what_rclone_complains_about() -> None:
    server = S3Server(flags=["--no-such-flag"])
    with pytest.raises(RuntimeError, match="unknown flag: --no-such-flag"):
        server.start()
    assert server.pid is None
    assert not server.folder.exists()


def test_names_the_extra_when_rclone_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    with pytest.raises(ModuleNotFoundError, match=r"from the checkout, pip install '\.\[demo\]'"):
        S3Server().start()


def test_a_certificate_needs_its_key(private_ca: PrivateCA) -> None:
    with pytest.raises(ValueError, match="both or neither"):
        S3Server(certificate=private_ca.certificate)


def test_a_bucket_that_cannot_be_made_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)]
    assert main(["--bucket", "X"]) == 1
    assert "cannot create the bucket 'X': HTTP 400" in capsys.readouterr().err
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)] == handlers
