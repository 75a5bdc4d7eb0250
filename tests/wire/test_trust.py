"""Whose certificates are trusted, and which addresses are reached without a proxy."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3torchconnector import S3ClientConfig
from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._wire._proxy import proxy_for
from s3torchconnector.testing import S3Server
from tests.servers.tls import PrivateCA
from tests.wire.support import open_client
from tests.wire.test_proxy_and_tls import DATA, round_trip


def configure(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "config").write_text(text)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))


@pytest.mark.parametrize("profile", [None, "lab"])
def test_the_bundle_of_a_profile_is_trusted(
    profile: str | None, s3_server_tls: S3Server, private_ca: PrivateCA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = "default" if profile is None else f"profile {profile}"
    configure(tmp_path, f"[{section}]\nca_bundle = {private_ca.bundle}\n", monkeypatch)
    if profile is not None:
        monkeypatch.setenv("AWS_PROFILE", profile)
    s3_server_tls.make_bucket("profile")
    assert round_trip(s3_server_tls.endpoint, "profile") == DATA


def test_the_bundle_of_requests_is_trusted(
    s3_server_tls: S3Server, private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(private_ca.bundle))
    s3_server_tls.make_bucket("requests")
    assert round_trip(s3_server_tls.endpoint, "requests") == DATA


def test_the_environments_bundle_comes_first(
    s3_server_tls: S3Server, private_ca: PrivateCA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "no-such.pem"))
    configure(tmp_path, f"[default]\nca_bundle = {tmp_path / 'no-such.pem'}\n", monkeypatch)
    s3_server_tls.make_bucket("first")
    assert round_trip(s3_server_tls.endpoint, "first") == DATA


def test_a_profiles_bundle_that_cannot_be_read_is_named(
    s3_server_tls: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, f"[default]\nca_bundle = {tmp_path / 'no-such.pem'}\n", monkeypatch)
    with (
        open_client(s3_server_tls.endpoint) as client,
        pytest.raises(S3ConfigurationError, match=r"the profile's ca_bundle=.*no-such\.pem cannot be read"),
    ):
        client.head_object("b", "k")


def test_verification_is_off_only_by_the_setting(s3_server_tls: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    s3_server_tls.make_bucket("trusting")
    with open_client(s3_server_tls.endpoint) as client, pytest.raises(S3ConfigurationError, match="cannot be trusted"):
        client.head_object("trusting", "k")
    assert round_trip(s3_server_tls.endpoint, "trusting", S3ClientConfig(verify_tls=False)) == DATA
    assert [record.levelname for record in caplog.records if "verify_tls=False" in record.getMessage()] == ["WARNING"]


@pytest.mark.parametrize(
    ("host", "excluded", "direct"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "localhost, 10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("fd00::1", "fd00::/8", True),
        ("[fd00::1]", "fd00::/8", True),
        ("fd00::1", "10.0.0.0/8", False),
        ("ten.example", "10.0.0.0/8", False),
        ("10.1.2.3", "10.0.0.0/99,nonsense/8", False),
    ],
)
def test_networks_are_reached_without_a_proxy(
    host: str, excluded: str, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:3128")
    monkeypatch.setenv("no_proxy", excluded)
    assert (proxy_for("https", host, 443) is None) is direct
