"""Forward proxies with and without credentials, and TLS with a CA of one's own, in front of the real server."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

import pytest

from s3torchconnector import S3ClientConfig
from s3torchconnector._errors import S3ConfigurationError, S3ConnectionError, S3TimeoutError
from s3torchconnector._wire._proxy import Proxy, proxy_for
from s3torchconnector.testing import S3Server
from tests.servers.forward_proxy import ForwardProxy
from tests.servers.http_messages import response
from tests.servers.scripted import ScriptedServer
from tests.servers.tls import PrivateCA
from tests.wire.support import open_client
from tests.wire.test_bad_responses import Speaking

SECRET = "p@ss:word/of-the-proxy"
QUOTED = "p%40ss%3Aword%2Fof-the-proxy"
DATA = bytes(range(256)) * 100


def round_trip(endpoint: str, bucket: str, config: S3ClientConfig | None = None) -> bytes:
    with open_client(endpoint, config) as client:
        stream = client.put_object(bucket, "a key")
        stream.write(DATA)
        stream.close()
        assert [each.key for page in client.list_objects(bucket) for each in page.object_info] == ["a key"]
        return client.get_object(bucket, "a key").read()


# -- proxies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_plain_requests_go_through_the_proxy(
    variable: str, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable == "HTTP_PROXY":
        monkeypatch.delenv("REQUEST_METHOD", raising=False)  # in a CGI script, HTTP_PROXY could be a client's header
    with ForwardProxy() as proxy:
        monkeypatch.setenv(variable, proxy.endpoint)
        assert round_trip(s3_server.endpoint, bucket) == DATA
        assert [request.method for request in proxy.requests] == ["PUT", "GET", "GET"]
        assert {request.target.startswith(f"{s3_server.endpoint}/{bucket}") for request in proxy.requests} == {True}
        assert "proxy-authorization" not in proxy.requests[0].headers


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
def test_tls_goes_through_a_tunnel_that_sees_nothing(
    variable: str, s3_server_tls: S3Server, private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    s3_server_tls.make_bucket("tunnel")
    with ForwardProxy(f"user:{SECRET}") as proxy:
        monkeypatch.setenv(variable, proxy.endpoint.replace("//", f"//user:{QUOTED}@"))
        assert round_trip(s3_server_tls.endpoint, "tunnel") == DATA
        assert {request.method for request in proxy.requests} == {"CONNECT"}
        assert proxy.requests[0].target == s3_server_tls.endpoint.removeprefix("https://")


def test_proxy_with_credentials(s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy(f"user:{SECRET}") as proxy:
        monkeypatch.setenv("http_proxy", proxy.endpoint.replace("//", f"//user:{QUOTED}@"))
        assert round_trip(s3_server.endpoint, bucket) == DATA


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_that_refuses_is_named_and_its_password_is_not(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy("user:another") as proxy:
        monkeypatch.setenv(f"{scheme}_proxy", proxy.endpoint.replace("//", f"//user:{QUOTED}@"))
        with (
            open_client(f"{scheme}://127.0.0.1:9", S3ClientConfig(unsigned=True)) as client,
            pytest.raises(S3ConfigurationError, match=r"proxy.* 407: .*HTTPS_PROXY") as caught,
        ):
            client.get_object("b", "k").read()
        assert len(proxy.requests) == 1
    assert SECRET not in str(caught.value)
    assert QUOTED not in str(caught.value)


@pytest.mark.parametrize("excluded", ["127.0.0.1", "*", "localhost,127.0.0.1", "{authority}"])
def test_endpoints_in_no_proxy_are_reached_directly(
    excluded: str, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = s3_server.endpoint.removeprefix("http://")
    with ForwardProxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.endpoint)
        monkeypatch.setenv("no_proxy", excluded.format(authority=authority))
        assert round_trip(s3_server.endpoint, bucket) == DATA
        assert proxy.accepted == 0


def test_proxy_that_is_down_is_named(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy() as proxy:
        endpoint = proxy.endpoint
    monkeypatch.setenv("http_proxy", endpoint)
    with (
        open_client(s3_server.endpoint, S3ClientConfig(max_attempts=1)) as client,
        pytest.raises(S3ConnectionError, match=f"through the proxy {endpoint.removeprefix('http://')}"),
    ):
        client.head_object("b", "k")


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n", response(502, b"no")])
def test_broken_proxy_opens_no_tunnel(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(handler=lambda request: answer) as server:
        server.serve = lambda connection, number: connection.sendall(answer)  # type: ignore[method-assign]
        monkeypatch.setenv("https_proxy", server.endpoint)
        config = S3ClientConfig(unsigned=True, max_attempts=1)
        with open_client("https://127.0.0.1:9", config) as client, pytest.raises(S3ConnectionError, match="proxy"):
            client.head_object("b", "k")


def test_silent_proxy_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    with Speaking(b"HTTP/1.1 2") as server:
        monkeypatch.setenv("https_proxy", server.endpoint)
        config = S3ClientConfig(unsigned=True, max_attempts=1, connect_timeout=0.3)
        with open_client("https://127.0.0.1:9", config) as client, pytest.raises(S3ConnectionError, match="timed out"):
            client.head_object("b", "k")


@pytest.mark.parametrize(
    "url", ["socks4://user:secret@127.0.0.1:1", "ftp://user:secret@127.0.0.1:1", "https://", "socks5://"]
)
def test_a_refused_kind_of_proxy_does_not_leak_its_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", url)
    with pytest.raises(S3ConfigurationError, match="NO_PROXY") as caught:
        proxy_for("http", "host", 80)
    assert "secret" not in str(caught.value)


def test_proxy_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_for("http", "host", 80) is None
    monkeypatch.setenv("http_proxy", "user:pa%20ss@[::1]:3128")
    proxy = proxy_for("http", "host", 80)
    assert proxy == Proxy("::1", 3128, "Basic dXNlcjpwYSBzcw==")
    assert "dXNl" not in repr(proxy)
    assert proxy_for("https", "host", 443) is None


@pytest.mark.parametrize(("excluded", "direct"), [("host", True), ("host:443", True), ("other", False)])
def test_proxies_are_bypassed_as_on_macos(excluded: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """``urllib.request.proxy_bypass`` takes only the host there."""

    def proxy_bypass(host: str) -> bool:
        return bool(proxy_bypass_environment(host))

    monkeypatch.setattr("s3torchconnector._wire._proxy.proxy_bypass", proxy_bypass)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:3128")
    monkeypatch.setenv("no_proxy", excluded)
    assert (proxy_for("https", "host", 443) is None) == direct


@pytest.mark.parametrize(
    ("size", "seconds", "message"), [(1000, 0.3, "timed out"), (1 << 20, 30.0, "its response is incomplete")]
)
def test_a_proxy_response_without_an_end_is_an_error(
    size: int, seconds: float, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Speaking(b"HTTP/1.1 200 OK\r\nx: " + b"y" * size) as server:
        monkeypatch.setenv("https_proxy", server.endpoint)
        config = S3ClientConfig(unsigned=True, max_attempts=1, connect_timeout=seconds)
        with open_client("https://127.0.0.1:9", config) as client, pytest.raises(S3ConnectionError, match=message):
            client.head_object("b", "k")


# -- TLS ------------------------------------------------------------------------------------------------------------


def test_private_ca(s3_server_tls: S3Server, private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    s3_server_tls.make_bucket("private")
    assert round_trip(s3_server_tls.endpoint, "private") == DATA


def test_objects_of_several_parts_over_tls(
    s3_server_tls: S3Server, private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    s3_server_tls.make_bucket("parts")
    data = os.urandom(1 << 20) * 13
    with open_client(s3_server_tls.endpoint, S3ClientConfig(part_size=5 << 20)) as client:
        stream = client.put_object("parts", "k")
        stream.write(data)
        stream.close()
        assert client.get_object("parts", "k").read() == data


def test_unknown_ca_is_refused_at_once_and_says_what_to_do(s3_server_tls: S3Server) -> None:
    with (
        open_client(s3_server_tls.endpoint) as client,
        pytest.raises(S3ConfigurationError, match=r"cannot be trusted.*AWS_CA_BUNDLE") as caught,
    ):
        client.head_object("b", "k")
    assert caught.value.attempts == 1


def test_certificate_of_another_host_is_refused(private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    with ScriptedServer(tls=private_ca.server_context) as server:
        endpoint = server.endpoint.replace("127.0.0.1", "127.0.0.2")
        server_port = server.address[1]
        with ForwardProxy() as proxy:  # leads 127.0.0.2 to the server, wherever the machine routes that address
            proxy._connect = lambda address: ForwardProxy._connect(proxy, ("127.0.0.1", server_port))  # type: ignore[method-assign]
            monkeypatch.setenv("https_proxy", proxy.endpoint)
            config = S3ClientConfig(unsigned=True, max_attempts=1)
            with open_client(endpoint, config) as client, pytest.raises(S3ConfigurationError, match="mismatch"):
                client.head_object("b", "k")


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_bundle_that_cannot_be_read_is_named(
    content: str | None, tmp_path: Path, s3_server_tls: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_text(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    with (
        open_client(s3_server_tls.endpoint) as client,
        pytest.raises(S3ConfigurationError, match=f"AWS_CA_BUNDLE={bundle} cannot be read"),
    ):
        client.head_object("b", "k")


def test_server_that_never_shakes_hands_is_a_timeout() -> None:
    with Speaking(b"") as server:
        endpoint = server.endpoint.replace("http:", "https:")
        config = S3ClientConfig(unsigned=True, max_attempts=1, connect_timeout=0.3)
        with open_client(endpoint, config) as client, pytest.raises(S3TimeoutError, match="no TLS handshake"):
            client.head_object("b", "k")
