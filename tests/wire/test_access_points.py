"""Access points by their ARNs: in all kinds of URIs, with moto; Multi-Region ones with SigV4A, verified."""

from __future__ import annotations

import http.client
import socket
import ssl
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
import torch.distributed.checkpoint as dcp
import trustme
from cryptography.exceptions import InvalidSignature

from s3torchconnector import (
    S3Checkpoint,
    S3CheckpointManager,
    S3Client,
    S3ClientConfig,
    S3Credentials,
    S3IterableDataset,
    S3Manifest,
    S3MapDataset,
)
from s3torchconnector._identity import Credentials
from s3torchconnector.dcp import S3FileSystem, S3StorageReader, S3StorageWriter
from s3torchconnector.errors import S3ConfigurationError
from s3torchconnector.lightning._fsspec import S3PathFileSystem
from s3torchconnector.lightning._paths import object_of
from tests.identity.test_sigv4a import verify
from tests.servers.http_messages import ReceivedRequest, read_request, response, s3_error
from tests.servers.memory_s3 import MemoryS3
from tests.servers.moto_server import MotoServer
from tests.servers.scripted import ScriptedServer
from tests.servers.tcp import TcpServer
from tests.wire.support import open_client

ACCOUNT = "123456789012"
ENDPOINT = "http://s3-accesspoint.us-west-2.amazonaws.com"
KEYS = S3Credentials("AKIDEXAMPLE", "secret", "a-token")
CONFIG = S3ClientConfig(credentials=KEYS)


# -- of one region -----------------------------------------------------------------------------------------------------


@pytest.fixture
def access_point(moto_server: MotoServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ARN of an access point of moto, which is reached as the proxy of all hosts."""
    bucket, name = f"test-{uuid.uuid4().hex}", f"ap-{uuid.uuid4().hex[:20]}"
    moto_server.make_bucket(bucket)
    with closing(http.client.HTTPConnection(urlsplit(moto_server.endpoint).netloc, timeout=60)) as connection:
        body = f"<CreateAccessPointRequest><Bucket>{bucket}</Bucket></CreateAccessPointRequest>"
        headers = {"Host": f"{ACCOUNT}.s3-control.us-west-2.amazonaws.com", "x-amz-account-id": ACCOUNT,
                   "Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/us-west-2/s3/aws4_request"}  # fmt: skip
        connection.request("PUT", f"/v20180820/accesspoint/{name}", body, headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
    monkeypatch.setenv("HTTP_PROXY", moto_server.endpoint)
    return f"arn:aws:s3:us-west-2:{ACCOUNT}:accesspoint/{name}"


def test_every_class_takes_the_arn_in_a_uri(access_point: str) -> None:
    uri = f"s3://{access_point}"
    where = {"region": "eu-west-1", "endpoint": ENDPOINT, "s3client_config": CONFIG}
    checkpoint = S3Checkpoint("eu-west-1", ENDPOINT, CONFIG)
    for i in range(3):
        with checkpoint.writer(f"{uri}/images/{i}") as writer:
            writer.write(b"%d" % i)
    assert checkpoint.reader(f"{uri}/images/2").read() == b"2"
    iterable = S3IterableDataset.from_prefix(f"{uri}/images/", **where)  # type: ignore[arg-type]
    assert [reader.read() for reader in iterable] == [b"0", b"1", b"2"]
    chosen = S3MapDataset.from_objects([f"{uri}/images/1"], **where)  # type: ignore[arg-type]
    assert [(reader.key, reader.read()) for reader in [chosen[0]]] == [("images/1", b"1")]

    manifest = S3Manifest.from_prefix(f"{uri}/images/", **where)  # type: ignore[arg-type]
    manifest.save(f"{uri}/manifest")
    again = S3Manifest.load(f"{uri}/manifest", **where)  # type: ignore[arg-type]
    assert S3MapDataset.from_manifest(again, **where)[1].read() == b"1"  # type: ignore[arg-type]

    checkpoint.save_safetensors({"a": torch.ones(3)}, f"{uri}/model.safetensors")
    assert checkpoint.load_safetensors(f"{uri}/model.safetensors")["a"].sum() == 3


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_checkpoints_below_an_arn(access_point: str) -> None:
    uri, state = f"s3://{access_point}/runs", {"weight": torch.arange(5.0)}
    dcp.save(state, storage_writer=S3StorageWriter("us-west-2", uri, s3client_config=CONFIG, endpoint=ENDPOINT))
    loaded = {"weight": torch.zeros(5)}
    dcp.load(loaded, storage_reader=S3StorageReader("us-west-2", uri, s3client_config=CONFIG, endpoint=ENDPOINT))
    assert torch.equal(loaded["weight"], state["weight"])

    files = S3FileSystem("us-west-2", s3client_config=CONFIG, endpoint=ENDPOINT)
    assert files.concat_path(uri, ".metadata") == f"s3://{access_point}/runs/.metadata"
    assert files.exists(f"{uri}/.metadata")
    assert all(files.exists(path) for path in files.ls(uri))
    assert len(files.ls(uri)) == 2

    saves = f"s3://{access_point}/saves"
    manager = S3CheckpointManager(saves, "us-west-2", endpoint=ENDPOINT, s3client_config=CONFIG)
    manager.save(7, state)
    assert manager.latest() == 7
    assert torch.equal(manager.load()["weight"], state["weight"])
    manager.close()


def test_paths_of_lightning_below_an_arn(access_point: str) -> None:
    assert object_of(f"s3://{access_point}/last.ckpt") == (access_point.replace("/", ":"), "last.ckpt")
    assert object_of(Path(f"s3://{access_point}/last.ckpt")) == (access_point.replace("/", ":"), "last.ckpt")
    with S3Client("us-west-2", endpoint=ENDPOINT, s3client_config=CONFIG) as client:
        files = S3PathFileSystem(skip_instance_cache=True)
        files.latest = client
        path = f"s3://{access_point}/logs/a.txt"
        with files.open(path, "w") as file:
            file.write("hello")
        assert files.exists(path)
        assert files.ls(f"s3://{access_point}/logs", detail=False) == [files._strip_protocol(path)]
        assert files.cat(files.ls(f"s3://{access_point}/logs", detail=False)[0]) == b"hello"
        files.rm(path)
        assert not files.exists(path)


def test_the_source_of_a_copy_is_the_arn_of_the_object() -> None:
    with ScriptedServer(handler=lambda request: response(200, b"<CopyObjectResult/>")) as server:
        with open_client(server.endpoint, CONFIG) as client:
            for separator in ":/":
                source = f"arn:aws:s3:us-west-2:{ACCOUNT}:accesspoint{separator}ap"
                client.copy_object(source, "a b/ü", "b", "k")
            client.copy_object("bucket", "a b", "b", "k")
        sources = [request.headers["x-amz-copy-source"] for request in server.requests]
    expected = f"arn:aws:s3:us-west-2:{ACCOUNT}:accesspoint/ap/object/a%20b/%C3%BC"
    assert sources == [expected, expected, "/bucket/a%20b"]


def test_an_access_point_at_an_ip_address_is_an_error() -> None:
    with (
        S3Client("us-west-2", endpoint="http://127.0.0.1:9", s3client_config=CONFIG) as client,
        pytest.raises(S3ConfigurationError, match=r"is put before the host, which therefore cannot be an IP address"),
    ):
        client.head_object(f"arn:aws:s3:us-west-2:{ACCOUNT}:accesspoint/ap", "k")


# -- of several regions ------------------------------------------------------------------------------------------------

MRAP = f"arn:aws:s3::{ACCOUNT}:accesspoint/mfzwi23gnjvgw.mrap"
HOST = "mfzwi23gnjvgw.mrap.accesspoint.s3-global.amazonaws.com"


class MultiRegion(TcpServer):
    """An HTTP proxy that is itself the host it is asked to connect to; verifies the signature of each request."""

    def __init__(self, authority: trustme.CA) -> None:
        super().__init__(None)
        self.memory = MemoryS3()
        self.hosts: list[str] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(HOST).configure_cert(self._context)

    def serve(self, connection: socket.socket, number: int) -> None:
        with connection.makefile("rb") as stream:
            asked = read_request(stream)
        assert asked is not None
        self.hosts.append(asked.target)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with self._context.wrap_socket(connection, server_side=True) as tls, tls.makefile("rb") as stream:
            while request := read_request(stream):
                tls.sendall(self._answer(request))

    def _answer(self, request: ReceivedRequest) -> bytes:
        path, _, query = request.target.partition("?")
        names = request.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
        headers = {name: request.headers[name] for name in names}
        try:
            verify(
                Credentials(KEYS.access_key, KEYS.secret_key), request.headers["authorization"], request.method, path,
                query, headers, headers["x-amz-content-sha256"],
            )  # fmt: skip
        except InvalidSignature:
            return s3_error(403, "SignatureDoesNotMatch")
        line = request.head.first_line.replace(" /", " /b/", 1)
        return self.memory.answer(replace(request, head=replace(request.head, first_line=line)))


@pytest.fixture
def multi_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MultiRegion]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with MultiRegion(authority) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.endpoint)
        yield server


def test_a_multi_region_access_point_gets_sigv4a(multi_region: MultiRegion) -> None:
    checkpoint = S3Checkpoint("eu-west-1", s3client_config=replace(CONFIG, max_attempts=1))
    with checkpoint.writer(f"s3://{MRAP}/a b/1") as writer:
        writer.write(b"12345")
    assert checkpoint.reader(f"s3://{MRAP}/a b/1").read() == b"12345"
    dataset = S3MapDataset.from_prefix(f"s3://{MRAP}/a b", region="eu-west-1", s3client_config=CONFIG)
    assert [reader.read() for reader in dataset] == [b"12345"]
    assert set(multi_region.hosts) == {f"{HOST}:443"}
    assert {request.headers["x-amz-region-set"] for request in multi_region.memory.requests} == {"*"}
    assert {request.headers["x-amz-security-token"] for request in multi_region.memory.requests} == {"a-token"}


def test_a_multi_region_access_point_without_awscrt(multi_region: MultiRegion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3torchconnector._identity._sigv4a.find_spec", lambda name: None)
    signed = S3Checkpoint("eu-west-1", s3client_config=replace(CONFIG, max_attempts=2))
    with pytest.raises(S3ConfigurationError, match=r"SigV4A.*\[checksums\]"):
        signed.reader(f"s3://{MRAP}/k").read()
    assert multi_region.hosts == []
