"""One server after the other: the real ones of the tests, and the stand-ins for others.

``python -m tests.every_server.table`` writes what the tests find into docs/guide/servers.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import pytest

from s3torchconnector._s3client import S3Client
from tests.reading.support import client_of
from tests.servers.scripted import ScriptedServer
from tests.servers.stand_ins import R2, AwsLike, Backblaze, Ceph16, Express, Gcs, Minio, OldMinio, RustFs, S3rver

REAL = ("rclone", "moto")
STAND_INS: tuple[type[AwsLike], ...] = (R2, AwsLike, Backblaze, Ceph16, Express, Gcs, Minio, OldMinio, RustFs, S3rver)


class Server(NamedTuple):
    """A server and an empty bucket of it.

    Attributes:
        memory: what the server keeps, if it is a stand-in.
        properties: those of the test that uses it.
    """

    name: str
    endpoint: str
    bucket: str
    properties: list[tuple[str, object]]
    memory: AwsLike | None = None

    def client(self, **settings: Any) -> S3Client:
        """A client with the smallest parts."""
        return client_of(self.endpoint, **{"max_attempts": 3, **settings})

    def limit(self, word: Literal["in part", "by setting", "refused", "ignored"], reason: str) -> None:
        """Note that the test holds a limit of this server: the page has the word in its table, and the reason below."""
        self.properties.append(("limit", (word, reason)))

    def uri(self, key: str = "") -> str:
        return f"s3://{self.bucket}/{key}"


@pytest.fixture(params=[*REAL, *(kind.__name__ for kind in STAND_INS)])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Every server, one at a time."""
    properties = request.node.user_properties
    if request.param == "rclone":
        endpoint = request.getfixturevalue("s3_server").endpoint
        yield Server("rclone", endpoint, request.getfixturevalue("bucket"), properties)
        return
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    if request.param == "moto":
        endpoint = request.getfixturevalue("moto_server").endpoint
        yield Server("moto", endpoint, request.getfixturevalue("moto_bucket"), properties)
        return
    memory = next(kind for kind in STAND_INS if kind.__name__ == request.param)()
    with memory.serve() as server:
        assert isinstance(server, ScriptedServer)
        yield Server(request.param, server.endpoint, memory.bucket, properties, memory)


@pytest.fixture(autouse=True)
def _short_pauses(short_pauses: None) -> None:
    """In every test here."""
