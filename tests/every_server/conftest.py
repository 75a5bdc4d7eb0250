"""One server after the other: the real ones of the tests, and the stand-ins for others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from s3torchconnector._s3client import S3Client
from tests.reading.support import client_of
from tests.servers.scripted import ScriptedServer
from tests.servers.stand_ins import R2, AwsLike, Backblaze, Ceph16, Express, Gcs, Minio, OldMinio, RustFs, S3rver

STAND_INS: tuple[type[AwsLike], ...] = (R2, AwsLike, Backblaze, Ceph16, Express, Gcs, Minio, OldMinio, RustFs, S3rver)


class Server(NamedTuple):
    """A server and an empty bucket of it.

    Attributes:
        memory: what the server keeps, if it is a stand-in.
    """

    name: str
    endpoint: str
    bucket: str
    memory: AwsLike | None = None

    def client(self, **settings: Any) -> S3Client:
        """A client with the smallest parts."""
        return client_of(self.endpoint, **{"max_attempts": 3, **settings})

    def uri(self, key: str = "") -> str:
        return f"s3://{self.bucket}/{key}"


@pytest.fixture(params=["rclone", "moto", *(kind.__name__ for kind in STAND_INS)])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Every server, one at a time."""
    if request.param == "rclone":
        yield Server("rclone", request.getfixturevalue("s3_server").endpoint, request.getfixturevalue("bucket"))
        return
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    if request.param == "moto":
        yield Server("moto", request.getfixturevalue("moto_server").endpoint, request.getfixturevalue("moto_bucket"))
        return
    memory = next(kind for kind in STAND_INS if kind.__name__ == request.param)()
    with memory.serve() as server:
        assert isinstance(server, ScriptedServer)
        yield Server(request.param, server.endpoint, memory.bucket, memory)
