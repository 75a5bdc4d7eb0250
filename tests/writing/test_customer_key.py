"""Keys of the customer (SSE-C) and the expected owner of buckets: sent with each request, and kept secret."""

from __future__ import annotations

import base64
import copy
import functools
import hashlib
import logging
import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch.distributed.checkpoint as dcp
from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector import (
    S3CheckpointManager,
    S3Client,
    S3ClientConfig,
    S3CustomerKey,
    S3IterableDataset,
    S3MapDataset,
    S3WriteOptions,
)
from s3torchconnector._errors import (
    S3AccessDeniedError,
    S3ConfigurationError,
    S3ObjectExistsError,
    S3ServiceError,
)
from s3torchconnector.dcp import S3StorageReader
from s3torchconnector.s3reader import S3ReaderConstructor
from tests.dcp.support import blank, same
from tests.servers.http_messages import ReceivedRequest, s3_error
from tests.servers.scripted import Reply, ScriptedServer
from tests.servers.stand_ins import AwsLike, CustomerKeys, Demanding, Express
from tests.writing import spawned
from tests.writing.spawned import KEY, key_of_program
from tests.writing.support import PART, noise
from tests.writing.test_write_options import SAVES, STATE

OTHER = bytes(32)
TEXT = base64.b64encode(KEY).decode()
VARIABLE = "S3TORCHCONNECTOR_TEST_KEY"

pytestmark = [
    pytest.mark.usefixtures("s3_server"),  # for its keys
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning"),
]


def broken_key(secret: str) -> bytes:
    raise RuntimeError(secret)


def config_of(key: Any = KEY, **settings: Any) -> S3ClientConfig:
    customer_key = S3CustomerKey(key) if isinstance(key, bytes) or callable(key) else key
    return S3ClientConfig(part_size=PART, max_attempts=3, customer_key=customer_key, **settings)


def client_of(server: ScriptedServer, key: Any = KEY, **settings: Any) -> S3Client:
    return S3Client("us-east-1", endpoint=server.endpoint, s3client_config=config_of(key, **settings))


@pytest.fixture
def memory() -> CustomerKeys:
    return CustomerKeys()


@pytest.fixture
def server(memory: CustomerKeys) -> Iterator[ScriptedServer]:
    with memory.serve() as server:
        yield server


# -- every request -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", SAVES)
def test_every_writer_sends_the_key(save: Callable[[str, S3ClientConfig], None]) -> None:
    counts = []
    for stand_in, config in ((CustomerKeys(), config_of()), (AwsLike(), config_of(None))):
        with stand_in.serve() as server:
            save(server.endpoint, config)
        counts.append(sorted(f"{each.method} {sorted(each.query)}" for each in stand_in.requests))
        if isinstance(stand_in, CustomerKeys):
            assert stand_in.keys.keys() >= stand_in.objects.keys()
    assert counts[0] == counts[1]


@pytest.mark.parametrize("size", [10, PART + 1])
@pytest.mark.parametrize("overwrite", [True, False])
def test_what_was_written_is_read(memory: CustomerKeys, server: ScriptedServer, size: int, overwrite: bool) -> None:
    data = noise(size)
    with client_of(server, checksum="required") as client:
        with client.put_object("bucket", "key", overwrite=overwrite) as writer:
            writer.write(data)
        assert client.head_object("bucket", "key").size == size
        for constructor in (None, S3ReaderConstructor.sequential(), S3ReaderConstructor.range_based()):
            with client.get_object("bucket", "key", reader_constructor=constructor) as reader:
                assert reader.read() == data
        with pytest.raises(S3ObjectExistsError):
            client.put_object("bucket", "key", overwrite=False)
    assert TEXT not in str(memory.objects)


def test_datasets_and_checkpoints_read_with_the_key(server: ScriptedServer) -> None:
    config = config_of()
    common: dict[str, Any] = {"endpoint": server.endpoint, "s3client_config": config}
    manager = S3CheckpointManager("s3://bucket/run", "us-east-1", **common)
    manager.save(1, STATE)
    assert same(manager.load(), STATE)
    manager.verify(1)
    SAVES[2](server.endpoint, config)
    state = blank(STATE)
    dcp.load(state, storage_reader=S3StorageReader("us-east-1", "s3://bucket/new", **common))
    assert same(state, STATE)
    for kind in (S3MapDataset, S3IterableDataset):
        dataset = kind.from_prefix("s3://bucket/run/", region="us-east-1", **common)  # type: ignore[attr-defined]
        assert all(len(reader.read()) > 0 for reader in dataset)


def test_a_copy_names_the_keys_of_both(memory: CustomerKeys, server: ScriptedServer) -> None:
    with client_of(server) as client, client_of(server, OTHER) as other:
        with client.put_object("bucket", "old") as writer:
            writer.write(b"data")
        client.copy_object("bucket", "old", "bucket", "same")
        other.copy_object("bucket", "old", "bucket", "new", source_key=S3CustomerKey(KEY))
        assert memory.keys["old"] == memory.keys["same"] != memory.keys["new"]
        with other.get_object("bucket", "new") as reader:
            assert reader.read() == b"data"
        with pytest.raises(S3AccessDeniedError, match="encrypted with another key than customer_key"):
            other.copy_object("bucket", "old", "bucket", "new")
        memory.demanded = False
        with client_of(server, None) as plain:
            with plain.put_object("bucket", "plain") as writer:
                writer.write(b"data")
            client.copy_object("bucket", "plain", "bucket", "now encrypted", source_key=None)
            assert memory.keys["now encrypted"] == memory.keys["old"]
            plain.copy_object("bucket", "old", "bucket", "plain again", source_key=S3CustomerKey(KEY))
            assert "plain again" not in memory.keys


def test_a_lost_response_is_no_failure_though_etags_are_no_md5(memory: CustomerKeys) -> None:
    """S3 tells a checksum, or else the time: an ETag that nobody can compute proves nothing."""
    lost: list[str] = []

    def lose(request: ReceivedRequest) -> Reply:
        answer = memory.answer(request)
        if request.method == "POST" and "uploadId" in request.query and not lost:
            lost.append(request.target)
            return ()
        return answer

    for checksum in ("when_supported", "off"):
        lost.clear()
        with ScriptedServer(handler=lose) as server, client_of(server, checksum=checksum) as client:
            with client.put_object("bucket", checksum) as writer:
                writer.write(noise(PART + 1))
            assert len(lost) == 1


# -- errors ------------------------------------------------------------------------------------------------------------


def test_errors_say_how_the_key_may_be_the_cause(memory: CustomerKeys, server: ScriptedServer) -> None:
    with client_of(server) as client, client_of(server, OTHER) as other, client_of(server, None) as plain:
        with client.put_object("bucket", "key") as writer:
            writer.write(b"data")
        with pytest.raises(S3AccessDeniedError, match="encrypted with another key than customer_key"):
            other.get_object("bucket", "key").read()
        with pytest.raises(S3ServiceError, match="give the key as customer_key in S3ClientConfig"):
            plain.get_object("bucket", "key").read()
        with pytest.raises(S3ServiceError, match="give the key as customer_key in S3ClientConfig"):
            plain.head_object("bucket", "key")
        with pytest.raises(S3AccessDeniedError, match="policy of the bucket may demand") as caught:
            plain.put_object("bucket", "other").close()
        assert "customer_key" in str(caught.value)
        memory.blocked = True
        for write in (
            lambda: client.put_object("bucket", "other").close(),
            lambda: client.copy_object("bucket", "key", "bucket", "other"),
        ):
            with pytest.raises(S3AccessDeniedError, match=r"unless their default encryption allows SSE-C"):
                write()
        assert client.get_object("bucket", "key").read() == b"data"
        memory.keys.clear()
        with pytest.raises(S3ServiceError, match="leave customer_key out"):
            client.get_object("bucket", "key").read()


@pytest.mark.parametrize("other", [{"encryption": "AES256"}, {"encryption": "aws:kms"}])
def test_two_encryptions_are_refused(server: ScriptedServer, other: dict[str, Any]) -> None:
    with pytest.raises(S3ConfigurationError, match="customer_key already encrypts objects"):
        config_of(write_options=S3WriteOptions(**other))
    with (
        client_of(server) as client,
        pytest.raises(S3ConfigurationError, match="customer_key already encrypts objects"),
    ):
        client.put_object("bucket", "key", options=S3WriteOptions(**other))


def test_the_key_is_not_sent_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    for endpoint in ("http://s3.us-east-1.amazonaws.com", "http://10.1.2.3:9000"):
        with pytest.raises(S3ConfigurationError, match="customer_key is not sent to http://"):
            S3Client("us-east-1", endpoint=endpoint, s3client_config=config_of())
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        with (
            S3Client("us-east-1", s3client_config=config_of()) as client,
            pytest.raises(S3ConfigurationError, match="customer_key is not sent to http://"),
        ):
            client.head_object("bucket", "key")
    S3Client("us-east-1", endpoint="https://10.1.2.3:9000", s3client_config=config_of())


@pytest.mark.parametrize(("size", "kind"), [(31, bytes), (33, bytes), (0, bytes), (32, list), (32, str)])
def test_a_key_has_32_bytes(size: int, kind: type) -> None:
    value: Any = "k" * size if kind is str else kind(bytes(size))
    with pytest.raises(S3ConfigurationError, match=r"customer key (is 32 bytes|has 32 bytes)"):
        S3CustomerKey(value)
    with pytest.raises(S3ConfigurationError, match=r"customer key (is 32 bytes|has 32 bytes)"):
        S3CustomerKey(lambda: value)._headers()


@given(st.binary(min_size=32, max_size=32))
def test_the_headers_match_s3(key: bytes) -> None:
    headers = S3CustomerKey(key)._headers()
    assert base64.b64decode(headers["x-amz-server-side-encryption-customer-key"]) == key
    md5 = base64.b64decode(headers["x-amz-server-side-encryption-customer-key-md5"])
    assert md5 == hashlib.md5(key).digest()
    assert headers["x-amz-server-side-encryption-customer-algorithm"] == "AES256"
    assert all(text not in repr(S3CustomerKey(key)) for text in headers.values() if text != "AES256")


def test_a_key_that_cannot_be_had_is_an_error_without_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "the secret itself"
    (tmp_path / "key").write_text(secret)
    monkeypatch.setenv(VARIABLE, secret)
    for key, text in (
        (S3CustomerKey.from_env(VARIABLE), f"the environment variable {VARIABLE} is not in base64"),
        (S3CustomerKey.from_env("S3TORCHCONNECTOR_NO_SUCH"), "set the environment variable S3TORCHCONNECTOR_NO_SUCH"),
        (S3CustomerKey.from_file(tmp_path / "key"), "key is not in base64"),
        (S3CustomerKey.from_file(tmp_path / "none"), "cannot be read"),
        (S3CustomerKey(functools.partial(broken_key, secret)), "broken_key raised RuntimeError"),
    ):
        with pytest.raises(S3ConfigurationError, match=text) as caught:
            key._headers()
        assert secret not in str(caught.value)
        assert secret not in repr(key)


# -- the secret --------------------------------------------------------------------------------------------------------


def test_the_key_is_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """A server that repeats it in its refusals is the worst case."""
    with (
        caplog.at_level(logging.DEBUG),
        ScriptedServer(handler=lambda _: s3_error(400, "InvalidArgument", f"The key {TEXT} was invalid")) as server,
        client_of(server) as client,
    ):
        with pytest.raises(S3ServiceError, match=r"The key \(the customer key\) was invalid") as caught:
            client.put_object("bucket", "key").close()
        assert server.requests[0].headers["x-amz-server-side-encryption-customer-key"] == TEXT
        said = [
            str(caught.value), repr(caught.value), repr(vars(caught.value)), caplog.text, client.debug_state(),
            repr(client), repr(client.s3client_config), repr(client.s3client_config.customer_key),
        ]  # fmt: skip
        for secret in (TEXT, repr(KEY)[2:40], KEY.hex()):
            assert all(secret not in text for text in said)
        for value in (client, client.s3client_config, client.s3client_config.customer_key):
            with pytest.raises(S3ConfigurationError, match="given as bytes is not pickled"):
                pickle.dumps(value)
    with pytest.raises(S3ConfigurationError) as refused:
        S3ClientConfig(customer_key=TEXT)  # type: ignore[arg-type]
    assert TEXT not in str(refused.value)


def test_the_key_is_in_no_late_error() -> None:
    answer = s3_error(403, "AccessDenied", f"The key {TEXT} was invalid").replace(b"403 Forbidden", b"200 OK")
    with ScriptedServer(handler=lambda _: answer) as server, client_of(server) as client:
        with pytest.raises(S3AccessDeniedError, match=r"The key \(the customer key\) was invalid") as caught:
            client.copy_object("bucket", "key", "bucket", "copy")
        assert TEXT not in repr(caught.value)
        assert TEXT not in str(vars(caught.value))


def test_keys_are_values(tmp_path: Path) -> None:
    for make in (
        lambda: S3CustomerKey(KEY),
        lambda: S3CustomerKey.from_env(VARIABLE),
        lambda: S3CustomerKey.from_file(tmp_path / "key"),
        lambda: S3CustomerKey(key_of_program),
    ):
        one, two = config_of(make()), config_of(make())
        assert one == two
        assert hash(one) == hash(two)
        assert copy.deepcopy(one) == one != config_of(OTHER)
        if make().__repr__() != repr(S3CustomerKey(KEY)):
            assert pickle.loads(pickle.dumps(one)) == one
    assert S3CustomerKey(KEY) != KEY


def test_spawned_workers_look_the_key_up(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, TEXT)
    (tmp_path / "key").write_bytes(KEY)
    keys = [S3CustomerKey.from_env(VARIABLE), S3CustomerKey.from_file(tmp_path / "key"), S3CustomerKey(key_of_program)]
    clients = [client_of(server, key) for key in keys]
    with clients[0].put_object("bucket", "key") as writer:
        writer.write(b"data")
    for client in clients:
        assert TEXT.encode() not in pickle.dumps(client)
        assert KEY not in pickle.dumps(client)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(spawned.read, clients)) == [b"data"] * 3
    for client in clients:
        client.close()


# -- the owner of buckets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("owner", ["1", "12345678901a", 111122223333, "١١١١٢٢٢٢٣٣٣٣"])
def test_an_owner_is_the_id_of_an_account(owner: Any) -> None:
    with pytest.raises(S3ConfigurationError, match="expected_bucket_owner must be the id of an account, 12 digits"):
        S3ClientConfig(expected_bucket_owner=owner)


def test_every_request_names_the_expected_owner() -> None:
    memory = Demanding({})
    with memory.serve() as server:
        config = config_of(None, expected_bucket_owner=memory.owner)
        for save in SAVES:
            save(server.endpoint, config)
        assert {each.headers.get("x-amz-expected-bucket-owner") for each in memory.requests} == {memory.owner}
        [copied] = [each for each in memory.requests if "x-amz-copy-source" in each.headers]
        assert copied.headers["x-amz-source-expected-bucket-owner"] == memory.owner
        with (
            client_of(server, None, expected_bucket_owner="000000000000") as client,
            pytest.raises(S3AccessDeniedError, match=r"not of the account 000000000000 \(expected_bucket_owner\)"),
        ):
            client.put_object("bucket", "key").close()


def test_directory_buckets_have_neither() -> None:
    memory = Express()
    for settings in ({"key": KEY}, {"key": None, "expected_bucket_owner": "111122223333"}):
        with (
            memory.serve() as server,
            client_of(server, **settings) as client,
            pytest.raises(S3ConfigurationError, match="directory buckets support neither SSE-C nor a check"),
        ):
            client.head_object(memory.bucket, "key")


def test_clients_that_differ_in_request_options_share_threads(server: ScriptedServer) -> None:
    settings = {"memory_budget": 7 * 1024**2 + os.getpid()}
    with client_of(server, **settings) as one, client_of(server, OTHER, **settings) as two:
        assert one._runtime().budget is two._runtime().budget
