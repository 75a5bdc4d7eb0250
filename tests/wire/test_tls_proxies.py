"""Proxies that are themselves spoken to by TLS (``https://`` in HTTP_PROXY and HTTPS_PROXY)."""

from __future__ import annotations

import logging
import os
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from s3torchconnector import S3ClientConfig
from s3torchconnector._errors import S3ConfigurationError, S3ConnectionError, S3Exception, S3TimeoutError
from s3torchconnector._wire import CancelledByCaller, CancelToken, operations, read_document
from s3torchconnector._wire._proxy import Proxy, proxy_for
from s3torchconnector._wire._tls_in_tls import InnerTls
from s3torchconnector.testing import S3Server
from tests.servers.forward_proxy import ForwardProxy
from tests.servers.http_messages import response
from tests.servers.tcp import TcpServer
from tests.servers.tls import PrivateCA
from tests.wire.support import get, open_caller, open_client
from tests.wire.test_bad_responses import Speaking
from tests.wire.test_proxy_and_tls import DATA, QUOTED, SECRET, round_trip

ONCE = {"unsigned": True, "max_attempts": 1, "connect_timeout": 2.0}
MIB = 1 << 20


@pytest.fixture(scope="module")
def ca_of_proxy(tmp_path_factory: pytest.TempPathFactory) -> PrivateCA:
    """Another authority than the endpoint's."""
    return PrivateCA.create(tmp_path_factory.mktemp("ca-of-proxy"))


@pytest.fixture
def proxy(ca_of_proxy: PrivateCA, monkeypatch: pytest.MonkeyPatch) -> Iterator[ForwardProxy]:
    """A proxy with credentials, which the environment names for all requests."""
    with ForwardProxy(f"user:{SECRET}", ca_of_proxy.server_context) as proxy:
        for scheme in ("http", "https"):
            monkeypatch.setenv(f"{scheme}_proxy", proxy.endpoint.replace("//", f"//user:{QUOTED}@"))
        yield proxy


def trusting(ca: PrivateCA, **settings: object) -> S3ClientConfig:
    return S3ClientConfig(proxy_ca_bundle=str(ca.bundle), **settings)  # type: ignore[arg-type]


def test_plain_requests_reach_the_proxy_by_tls(
    proxy: ForwardProxy, ca_of_proxy: PrivateCA, s3_server: S3Server, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "s3torchconnector"):
        assert round_trip(s3_server.endpoint, bucket, trusting(ca_of_proxy)) == DATA
    assert [request.method for request in proxy.requests] == ["PUT", "GET", "GET"]
    assert {request.target.startswith(f"{s3_server.endpoint}/{bucket}") for request in proxy.requests} == {True}
    assert "dXNlcjpw" not in caplog.text
    assert SECRET not in caplog.text


def test_a_tunnel_has_tls_in_tls(
    proxy: ForwardProxy,
    ca_of_proxy: PrivateCA,
    s3_server_tls: S3Server,
    private_ca: PrivateCA,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    s3_server_tls.make_bucket("tls-in-tls")
    with caplog.at_level(logging.DEBUG, "s3torchconnector"):
        assert round_trip(s3_server_tls.endpoint, "tls-in-tls", trusting(ca_of_proxy)) == DATA
    assert {request.method for request in proxy.requests} == {"CONNECT"}
    assert SECRET not in caplog.text


def test_large_and_small_objects_come_through_tls_in_tls(
    proxy: ForwardProxy,
    ca_of_proxy: PrivateCA,
    s3_server_tls: S3Server,
    private_ca: PrivateCA,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    s3_server_tls.make_bucket("tls-in-tls-parts")
    data = os.urandom(MIB) * 13
    with open_client(s3_server_tls.endpoint, trusting(ca_of_proxy, part_size=5 * MIB)) as client:
        with client.put_object("tls-in-tls-parts", "large") as writer:
            writer.write(data)
        assert client.get_object("tls-in-tls-parts", "large").read() == data
        keys = [f"{number:03}" for number in range(40)]
        for key in keys:
            with client.put_object("tls-in-tls-parts", key) as writer:
                writer.write(key.encode() * 10_000)
        readers = [client.get_object("tls-in-tls-parts", key) for key in keys]
        for reader in readers:
            reader._start_early()
        assert [reader.read() for reader in readers] == [key.encode() * 10_000 for key in keys]


def test_by_default_the_proxy_needs_a_certificate_that_the_endpoint_may_have(
    proxy: ForwardProxy, ca_of_proxy: PrivateCA, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = S3ClientConfig(max_attempts=1)
    with (
        open_client(s3_server.endpoint, config) as client,
        pytest.raises(S3ConfigurationError, match=r"certificate of the proxy 127.* cannot be trusted.*proxy_ca_bundle"),
    ):
        client.head_object(bucket, "k")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(ca_of_proxy.bundle))
    assert round_trip(s3_server.endpoint, bucket, config) == DATA


def test_a_proxy_with_the_certificate_of_another_host_is_refused(
    ca_of_proxy: PrivateCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3torchconnector._wire._dialer.look_up", lambda route: [(2, 1, 6, "", proxy.address)])
    with ForwardProxy(tls=ca_of_proxy.server_context) as proxy:
        monkeypatch.setenv("http_proxy", "https://proxy.example:443")
        with (
            open_client("http://127.0.0.1:9", trusting(ca_of_proxy, **ONCE)) as client,
            pytest.raises(S3ConfigurationError, match=r"certificate of the proxy proxy\.example:443 .*mismatch"),
        ):
            client.head_object("b", "k")


def test_no_bytes_of_the_endpoint_are_trusted_for_the_proxys_certificate(
    proxy: ForwardProxy, ca_of_proxy: PrivateCA, s3_server_tls: S3Server
) -> None:
    with (
        open_client(s3_server_tls.endpoint, trusting(ca_of_proxy, max_attempts=1)) as client,
        pytest.raises(S3ConfigurationError, match=r"certificate of https://.* cannot be trusted.*AWS_CA_BUNDLE"),
    ):
        client.head_object("b", "k")


def test_a_bundle_that_cannot_be_read_is_named(proxy: ForwardProxy, tmp_path: Path) -> None:
    config = S3ClientConfig(proxy_ca_bundle=str(tmp_path / "none.pem"), max_attempts=1)
    with (
        open_client("http://127.0.0.1:9", config) as client,
        pytest.raises(S3ConfigurationError, match=r"proxy_ca_bundle=.*none\.pem cannot be read"),
    ):
        client.head_object("b", "k")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_refused_credentials_are_named_and_not_shown(
    scheme: str, ca_of_proxy: PrivateCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy("user:another", ca_of_proxy.server_context) as proxy:
        monkeypatch.setenv(f"{scheme}_proxy", proxy.endpoint.replace("//", f"//user:{QUOTED}@"))
        with (
            open_client(f"{scheme}://127.0.0.1:9", trusting(ca_of_proxy, **ONCE)) as client,
            pytest.raises(S3ConfigurationError, match=r"proxy.* 407: .*HTTPS_PROXY") as caught,
        ):
            client.head_object("b", "k")
        assert len(proxy.requests) == 1
    assert SECRET not in str(caught.value)
    assert QUOTED not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_without_tls_is_an_error_in_time(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Speaking(response(400, b"no TLS here")) as server:
        monkeypatch.setenv(f"{scheme}_proxy", server.endpoint.replace("http:", "https:"))
        with (
            open_client(f"{scheme}://127.0.0.1:9", S3ClientConfig(**ONCE)) as client,  # type: ignore[arg-type]
            pytest.raises(S3ConnectionError, match=r"handshake with the proxy .* failed.*Does the proxy speak TLS\?"),
        ):
            client.head_object("b", "k")


def test_an_endpoint_that_never_shakes_hands_is_a_timeout(proxy: ForwardProxy, ca_of_proxy: PrivateCA) -> None:
    with Speaking(b"") as server:
        endpoint = server.endpoint.replace("http:", "https:")
        config = trusting(ca_of_proxy, **{**ONCE, "connect_timeout": 0.5})
        with open_client(endpoint, config) as client, pytest.raises(S3TimeoutError, match="no TLS handshake"):
            client.head_object("b", "k")


class Silent(TcpServer):
    """Shakes hands, receives one request, and says nothing."""

    received = threading.Event()

    def serve(self, connection: socket.socket, number: int) -> None:
        connection.recv(1 << 16)
        self.received.set()
        while connection.recv(1 << 16):
            pass


def test_silence_and_cancelling_end_a_request_in_tls_in_tls(
    proxy: ForwardProxy, ca_of_proxy: PrivateCA, private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    with Silent(private_ca.server_context) as server:
        config = trusting(ca_of_proxy, unsigned=True, max_attempts=1, read_timeout=0.3)
        with open_caller(server.endpoint, config) as caller, pytest.raises(S3TimeoutError, match="silent"):
            get(caller)
        server.received.clear()
        errors: list[S3Exception] = []
        token = CancelToken()

        def receive() -> None:
            with pytest.raises(CancelledByCaller) as caught:
                caller.call(operations.get_object("b", "k"), read_document, token)
            errors.append(caught.value)

        with open_caller(server.endpoint, trusting(ca_of_proxy, unsigned=True, max_attempts=1)) as caller:
            thread = threading.Thread(target=receive)
            thread.start()
            assert server.received.wait(20)
            token.cancel()
            thread.join(20)
        assert len(errors) == 1


def receive_in_tls_in_tls(outer: ssl.SSLSocket, context: ssl.SSLContext, count: int, begin: threading.Event) -> bytes:
    """The server's end: shake hands, wait, and receive ``count`` bytes."""
    incoming, outgoing, received = ssl.MemoryBIO(), ssl.MemoryBIO(), b""
    inner = context.wrap_bio(incoming, outgoing, server_side=True)
    while len(received) < count:
        try:
            if received or inner.version() is not None:
                received += inner.read(MIB)
            else:
                inner.do_handshake()
                outer.sendall(outgoing.read())
                begin.wait(20)
        except ssl.SSLWantReadError:
            outer.sendall(outgoing.read())
            incoming.write(outer.recv(MIB))
    return received


def test_what_the_socket_takes_in_pieces_is_sent_once(ca_of_proxy: PrivateCA) -> None:
    data = os.urandom(2 * MIB)
    begin = threading.Event()
    ours, theirs = socket.socketpair()
    context = ssl.create_default_context(cafile=str(ca_of_proxy.bundle))
    with ours, theirs, ThreadPoolExecutor(1) as pool:

        def serve() -> bytes:
            with ca_of_proxy.server_context.wrap_socket(theirs, server_side=True) as outer:
                return receive_in_tls_in_tls(outer, ca_of_proxy.server_context, len(data), begin)

        received = pool.submit(serve)
        outer = context.wrap_socket(ours, server_hostname="localhost")
        inner = InnerTls(outer, context, "localhost", None, lambda: 20.0)
        inner.settimeout(0.0)
        poll, left, waits = select.poll(), memoryview(data), 0
        poll.register(inner, select.POLLOUT)
        while left:
            try:
                left = left[inner.send(left) :]
            except ssl.SSLWantWriteError:
                waits += 1
                begin.set()
                poll.poll(20_000)
        begin.set()
        assert received.result() == data
        assert waits
        inner.close()


def test_the_proxy_of_the_environment_has_its_scheme_and_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "https://proxy.example")
    assert proxy_for("https", "host", 443) == Proxy("proxy.example", 443, None, "https")
