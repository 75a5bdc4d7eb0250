"""SOCKS 5 proxies: plain requests and TLS, logins, names that the proxy looks up, and refusals."""

from __future__ import annotations

import pytest

from s3torchconnector import S3ClientConfig
from s3torchconnector._errors import S3ConfigurationError, S3ConnectionError, S3TimeoutError
from s3torchconnector.testing import S3Server
from tests.servers.socks import SocksProxy
from tests.servers.tls import PrivateCA
from tests.wire.support import open_client
from tests.wire.test_bad_responses import Speaking
from tests.wire.test_proxy_and_tls import DATA, QUOTED, SECRET, round_trip

ONCE = S3ClientConfig(unsigned=True, max_attempts=1)
IMPATIENT = S3ClientConfig(unsigned=True, max_attempts=1, connect_timeout=0.3)


def url_of(proxy: SocksProxy, scheme: str = "socks5", login: str = "") -> str:
    return proxy.endpoint.replace("http://", f"{scheme}://{login}")


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_plain_requests_go_through_the_proxy(
    scheme: str, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SocksProxy() as proxy:
        monkeypatch.setenv("http_proxy", url_of(proxy, scheme))
        assert round_trip(s3_server.endpoint, bucket) == DATA
        assert set(proxy.hosts) == {"127.0.0.1"}


def test_tls_goes_through_the_proxy_with_a_login(
    s3_server_tls: S3Server, private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    s3_server_tls.make_bucket("socks")
    with SocksProxy(("user", SECRET)) as proxy:
        monkeypatch.setenv("https_proxy", url_of(proxy, login=f"user:{QUOTED}@"))
        assert round_trip(s3_server_tls.endpoint, "socks") == DATA
        assert proxy.hosts


@pytest.mark.parametrize(("scheme", "named"), [("socks5", False), ("socks5h", True)])
def test_the_party_that_looks_up_a_name(
    scheme: str, named: bool, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SocksProxy() as proxy:
        monkeypatch.setenv("http_proxy", url_of(proxy, scheme))
        endpoint = s3_server.endpoint.replace("127.0.0.1", "localhost")
        with open_client(endpoint, S3ClientConfig(max_attempts=1, force_path_style=True)) as client:
            list(client.list_objects(bucket))
        assert set(proxy.hosts) == ({"localhost"} if named else {"127.0.0.1"})


@pytest.mark.parametrize("login", ["", f"other:{QUOTED}@"])
def test_a_login_that_is_refused_is_a_setting(login: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with SocksProxy(("user", SECRET)) as proxy:
        monkeypatch.setenv("http_proxy", url_of(proxy, login=login))
        with (
            open_client("http://127.0.0.1:9", ONCE) as client,
            pytest.raises(S3ConfigurationError, match="other credentials") as caught,
        ):
            client.head_object("b", "k")
    assert SECRET not in str(caught.value)


def test_a_host_that_the_proxy_does_not_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with SocksProxy(refuses=True) as proxy:
        monkeypatch.setenv("http_proxy", url_of(proxy))
        with (
            open_client("http://127.0.0.1:9", ONCE) as client,
            pytest.raises(S3ConnectionError, match=r"does not connect to 127\.0\.0\.1:9: the connection was"),
        ):
            client.head_object("b", "k")


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\5"])
def test_a_server_that_is_not_a_socks_proxy_is_an_error_in_time(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with Speaking(said) as server:
        monkeypatch.setenv("http_proxy", server.endpoint.replace("http:", "socks5:"))
        with (
            open_client("http://127.0.0.1:9", IMPATIENT) as client,
            pytest.raises((S3ConnectionError, S3TimeoutError), match=r"SOCKS 5|timed out"),
        ):
            client.head_object("b", "k")
