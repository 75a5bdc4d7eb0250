"""Clients that are configured alike share connections, threads and the byte budget of their process."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s3torchconnector import S3ClientConfig, S3IterableDataset
from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo
from s3torchconnector.testing import S3Server
from tests.reading.support import wait_until
from tests.resources import Opened, settings_of_its_own
from tests.servers.http_messages import ReceivedRequest, response
from tests.servers.scripted import Reply, ScriptedServer, Send, Stall

BODY = b"12345"
CONFIG = S3ClientConfig(checksum="off")


@pytest.fixture(scope="module", autouse=True)
def _opened_once() -> None:
    """Have the process open what it opens only once, before a test counts."""
    S3Client("us-east-1", endpoint="http://127.0.0.1:9")._runtime()
    gc.collect()


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDFIRST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.fixture
def server(keys: None) -> Iterator[ScriptedServer]:
    with ScriptedServer(handler=lambda request: response(200, BODY)) as server:
        yield server


@pytest.fixture
def new_client() -> Iterator[Callable[..., S3Client]]:
    """Makes clients, and closes them at the end."""
    with contextlib.ExitStack() as stack:

        def make(
            endpoint: str | None, region: str = "us-east-1", agent: str | None = None, **settings: Any
        ) -> S3Client:
            config = replace(CONFIG, **settings)
            client = S3Client(region, endpoint=endpoint, user_agent=agent, s3client_config=config)
            return stack.enter_context(client)

        yield make


def get(client: S3Client) -> bytes:
    with client.get_object("b", "k") as reader:
        return reader.read()


def share(one: S3Client, other: S3Client) -> bool:
    first, second = one._runtime(), other._runtime()
    has_budget, has_pool = first.budget is second.budget, first.caller._pool is second.caller._pool
    assert has_budget == has_pool
    return has_pool


def test_many_clients_use_one_connection(server: ScriptedServer, new_client: Callable[..., S3Client]) -> None:
    clients = [new_client(server.endpoint) for _ in range(20)]
    assert [get(client) for client in clients] == [BODY] * 20
    assert server.accepted == 1


def test_many_datasets_have_no_more_open_than_one(s3_server: S3Server, bucket: str) -> None:
    for number in range(40):
        (s3_server.folder / bucket / f"{number:03}").write_bytes(BODY)
    config = settings_of_its_own(max_connections=4)

    def read() -> S3IterableDataset:
        dataset = S3IterableDataset.from_prefix(
            f"s3://{bucket}", region="us-east-1", endpoint=s3_server.endpoint, s3client_config=config
        )
        assert [reader.read() for reader in dataset] == [BODY] * 40
        return dataset

    kept = [read()]
    opened = Opened()
    kept += [read() for _ in range(20)]
    assert len(opened.descriptors) <= 4
    assert len(opened.threads) <= 4
    assert len(kept) == 21


def test_clients_with_other_endpoints_or_limits_do_not_share(
    server: ScriptedServer, new_client: Callable[..., S3Client]
) -> None:
    one = new_client(server.endpoint)
    assert share(one, new_client(server.endpoint, agent="another"))
    assert not share(one, new_client(f"{server.endpoint}/"))
    assert not share(one, new_client(server.endpoint, region="eu-west-1"))
    assert not share(one, new_client(server.endpoint, max_connections=7))
    assert not share(one, new_client(server.endpoint, read_timeout=7.0))


def test_clients_that_trust_other_certificates_do_not_share(
    server: ScriptedServer, new_client: Callable[..., S3Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.pem"
    clients = [new_client(server.endpoint)]
    clients[0]._runtime()
    for content in (None, "a", "a longer one"):
        if content is not None:
            bundle.write_text(content)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
        clients.append(new_client(server.endpoint))
        clients[-1]._runtime()
        assert not any(share(clients[-1], other) for other in clients[:-1]), content
    assert share(clients[-1], new_client(server.endpoint))


def test_each_signs_with_its_own_keys(
    server: ScriptedServer, new_client: Callable[..., S3Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = new_client(server.endpoint)
    assert get(first) == BODY
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDSECOND")
    second = new_client(server.endpoint)
    assert [get(client) for client in (second, first)] == [BODY] * 2
    signed_by = [request.headers["authorization"].partition("Credential=")[2][:9] for request in server.requests]
    assert signed_by == ["AKIDFIRST", "AKIDSECON", "AKIDFIRST"]
    assert server.accepted == 1


@pytest.mark.usefixtures("keys")
def test_closing_one_client_does_not_disturb_another(new_client: Callable[..., S3Client]) -> None:
    asked, release = threading.Event(), threading.Event()

    def respond(request: ReceivedRequest) -> Reply:
        if request.headers["user-agent"].startswith("slow"):
            asked.set()
            return [Stall(release), Send(response(200, BODY))]
        return response(200, BODY)

    with ScriptedServer(handler=respond) as server:
        slow, other = new_client(server.endpoint, agent="slow"), new_client(server.endpoint)
        got: list[bytes] = []
        reading = threading.Thread(target=lambda: got.append(get(slow)))
        reading.start()
        assert asked.wait(30)
        assert get(other) == BODY
        other.close()  # does not wait for requests of the other client
        assert not release.is_set()
        release.set()
        reading.join()
        assert got == [BODY]
        assert get(slow) == get(other) == BODY
        assert server.accepted == 2, "the connections were lost"


def test_closing_a_client_waits_for_its_requests(server: ScriptedServer, new_client: Callable[..., S3Client]) -> None:
    one, other = new_client(server.endpoint), new_client(server.endpoint)
    assert share(one, other)
    release, order = threading.Event(), []

    def job() -> None:
        release.wait(30)
        order.append("done")

    def close() -> None:
        one.close()
        order.append("closed")

    workers = one._runtime().workers
    workers.submit(job)
    closing = threading.Thread(target=close)
    closing.start()
    wait_until(lambda: workers.are_wanted)
    with pytest.raises(RuntimeError, match="the S3 client is closed"):
        workers.submit(job)
    other._runtime().workers.submit(release.set)
    closing.join()
    assert order == ["done", "closed"]


def test_each_has_a_thread_for_small_objects(server: ScriptedServer, new_client: Callable[..., S3Client]) -> None:
    """Even if there are few threads, and others are busy for long."""
    busy, other = new_client(server.endpoint, max_connections=1), new_client(server.endpoint, max_connections=1)
    release = threading.Event()
    busy._runtime().workers.submit(release.wait)
    with other.get_object("b", "k", object_info=ObjectInfo("k", "", len(BODY), 0)) as reader:
        assert reader._start_early(None)
        assert reader.read() == BODY
    release.set()


def test_closing_the_last_client_ends_everything(server: ScriptedServer, new_client: Callable[..., S3Client]) -> None:
    """A client may be dropped instead, and one that is closed twice counts once."""
    opened = Opened()
    clients = [
        new_client(server.endpoint),
        new_client(server.endpoint),
        S3Client("us-east-1", endpoint=server.endpoint, s3client_config=CONFIG),
    ]
    assert [get(client) for client in clients] == [BODY] * 3
    clients[0].close()
    clients[0].close()
    assert get(clients[1]) == BODY
    clients[1].close()
    assert get(clients[2]) == BODY
    assert server.accepted == 1
    clients.clear()
    gc.collect()
    assert opened.are_gone()


@pytest.mark.parametrize("endpoint", ["ftp://nowhere", "http://"])
def test_a_client_that_cannot_be_made_opens_nothing(endpoint: str) -> None:
    from s3torchconnector._transfer.engine import _shared

    before = dict(_shared._shared)
    with pytest.raises(ValueError, match="endpoint"):
        S3Client("us-east-1", endpoint=endpoint)._runtime()
    assert _shared._shared == before


def test_a_forked_child_shares_nothing_with_its_parent(
    server: ScriptedServer, new_client: Callable[..., S3Client]
) -> None:
    one, other = new_client(server.endpoint), new_client(server.endpoint)
    assert get(one) == get(other) == BODY
    inherited = list(one._runtime().caller._pool._open)

    def in_child() -> bool:
        return (
            share(one, other)
            and all(connection.fileno() < 0 for connection in inherited)
            and get(one) == get(other) == BODY
        )

    pid = os.fork()
    if not pid:
        try:
            os._exit(0 if in_child() else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert get(one) == get(other) == BODY
    assert server.accepted == 2  # one by the child


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("who", ["threads of the program", "workers"])
def test_after_a_burst_sockets_and_threads_go(
    new_client: Callable[..., S3Client], monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """Without another call, and without closing the client."""
    monkeypatch.setattr("s3torchconnector._wire._pool._MAX_IDLE_SECONDS", 0.02)
    monkeypatch.setattr("s3torchconnector._transfer.engine._workers._STAYS", 0.02)
    together = threading.Barrier(20)

    def respond(request: ReceivedRequest) -> bytes:
        together.wait(30)
        return response(200, headers={"Content-Length": str(len(BODY))})

    with ScriptedServer(handler=respond) as server:
        opened = Opened()
        client = new_client(server.endpoint, hedge=False)
        if who == "workers":
            lane = client._runtime().lane()
            lane._width = 20
            for head in [lane.submit(lambda: client.head_object("b", "k")) for _ in range(20)]:
                head.result()
        else:
            calls = [threading.Thread(target=client.head_object, args=("b", "k")) for _ in range(20)]
            for call in calls:
                call.start()
            for call in calls:
                call.join()
        assert server.accepted == 20
        assert opened.are_gone()  # the server's threads end with its connections
        together = threading.Barrier(1)
        assert client.head_object("b", "k").size == len(BODY)
