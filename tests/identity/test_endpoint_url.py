"""Custom endpoints: where requests go, and the errors for invalid ones."""

from __future__ import annotations

from typing import Any

import pytest

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._identity import EndpointResolver
from tests.identity.conftest import AwsFiles
from tests.identity.support import ACCESS_POINT, DIRECTORY_BUCKET, PATH_STYLE, resolve, url


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("http://127.0.0.1:9000", ("http", "127.0.0.1", 9000, "/train", "127.0.0.1:9000")),
        ("http://[::1]:9000", ("http", "::1", 9000, "/train", "[::1]:9000")),
        ("https://[fd00::5]", ("https", "fd00::5", 443, "/train", "[fd00::5]")),
        ("http://minio", ("http", "minio", 80, "/train", "minio")),
        ("http://minio_1:80/", ("http", "minio_1", 80, "/train", "minio_1")),
        ("HTTPS://LocalHost:443", ("https", "localhost", 443, "/train", "localhost")),
        ("http://minio:443", ("http", "minio", 443, "/train", "minio:443")),
        ("http://minio/a//b/", ("http", "minio", 80, "/a/b/train", "minio")),
        ("http://minio/a%20ü", ("http", "minio", 80, "/a%20%C3%BC/train", "minio")),
        ("s3.example.com:90", ("https", "train.s3.example.com", 90, "", "train.s3.example.com:90")),
        ("https://host.example/base", ("https", "train.host.example", 443, "/base", "train.host.example")),
    ],
)
def test_custom_endpoints(endpoint: str, expected: tuple[str, str, int, str, str]) -> None:
    assert resolve("train", "r", endpoint) == (*expected, "r", "s3", False, False)


def test_an_explicit_endpoint_wins(monkeypatch: pytest.MonkeyPatch, aws_files: AwsFiles) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://environment")
    aws_files.config.write_text("[default]\nendpoint_url = http://file\n")

    assert resolve("train", endpoint="http://argument").host == "argument"
    assert resolve("train", endpoint="http://argument.example").host == "train.argument.example"


def test_path_style_of_a_custom_endpoint() -> None:
    endpoint = resolve("train", endpoint="https://host.example/base", config=PATH_STYLE)

    assert url(endpoint) == "https://host.example/base/train"


@pytest.mark.parametrize(
    ("bucket", "endpoint", "expected"),
    [
        ("my.train", "https://host.example", "https://host.example/my.train"),
        ("my.train", "http://host.example", "http://my.train.host.example"),
        ("my train", "http://localhost", "http://localhost/my%20train"),
        ("train-abc-s3alias", "http://localhost", "http://localhost/train-abc-s3alias"),
        ("my.train-abc-s3alias", "http://127.0.0.1", "http://127.0.0.1/my.train-abc-s3alias"),
        (ACCESS_POINT, "https://host.example/base", "https://train-123456789012.host.example/base"),
    ],
)
def test_buckets_of_a_custom_endpoint(bucket: str, endpoint: str, expected: str) -> None:
    assert url(resolve(bucket, endpoint=endpoint)) == expected


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("http://127.0.0.1:5000/base", f"http://127.0.0.1:5000/base/{DIRECTORY_BUCKET}"),
        ("http://localhost:5000/base", f"http://localhost:5000/base/{DIRECTORY_BUCKET}"),
        ("https://host.example", f"https://{DIRECTORY_BUCKET}.host.example"),
    ],
)
def test_directory_bucket_of_a_custom_endpoint(endpoint: str, expected: str) -> None:
    found = resolve(DIRECTORY_BUCKET, endpoint=endpoint)

    assert url(found) == expected
    assert found[5:] == ("eu-west-1", "s3express", True, False)


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "http://",
        "ftp://host",
        "http:/host",
        "http://host:",
        "://host",
        "http://host:port",
        "http://host:99999",
        "http://host:0",
        "http://host?x=1",
        "http://host#x",
        "http://ho st",
        "http://host\n",
        "http://-host",
        "http://host..example",
        "http://1.2.3",
        "http://1.2.3.400",
        "http://[::1",
        "http://[fe80::1%25eth0]",
        "http://hôst",
        "http://host/%zz",
        "http://host/a/../b",
    ],
)
def test_an_invalid_endpoint_is_named(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(S3ConfigurationError) as caught:
        EndpointResolver("eu-west-1", endpoint, S3ClientConfig())
    assert f"endpoint={endpoint!r}" in str(caught.value)

    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        with pytest.raises(S3ConfigurationError) as caught:
            EndpointResolver("eu-west-1", None, S3ClientConfig())
        assert f"AWS_ENDPOINT_URL_S3={endpoint!r}" in str(caught.value)


def test_a_password_in_an_endpoint_is_refused_and_not_repeated() -> None:
    with pytest.raises(S3ConfigurationError, match=r"endpoint.*user name or password") as caught:
        EndpointResolver("eu-west-1", "https://user:hush@host", S3ClientConfig())

    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("region", ["", "eu west", "eu/west", "eu\n", "é", None, 1])
def test_an_invalid_region_is_named(region: Any) -> None:
    with pytest.raises(S3ConfigurationError) as caught:
        EndpointResolver(region, None, S3ClientConfig())

    assert f"region={region!r}" in str(caught.value)


@pytest.mark.parametrize("region", ["eu_west", "-eu", "a..b"])
def test_a_region_without_a_host_name_is_named(region: str) -> None:
    with pytest.raises(S3ConfigurationError, match=region):
        resolve("train", region)


@pytest.mark.parametrize("bucket", ["", ".", "..", "\udc80", "arn:aws:s3:::", "arn:aws:s3:us-west-2:1:bucket/b"])
def test_an_invalid_bucket_is_named(bucket: str) -> None:
    with pytest.raises(S3ConfigurationError) as caught:
        resolve(bucket)

    assert repr(bucket) in str(caught.value)
