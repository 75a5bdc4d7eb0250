"""Every endpoint against the rule set and the clients of botocore."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import pytest
from botocore.config import Config
from botocore.endpoint_provider import EndpointProvider
from botocore.exceptions import EndpointResolutionError
from botocore.loaders import create_loader
from botocore.session import Session
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._identity import EndpointResolver
from s3torchconnector._identity._endpoint_rules import EndpointRules
from s3torchconnector._identity._endpoint_url import parse_endpoint
from tests.identity.support import ACCESS_POINT, DIRECTORY_BUCKET, PATH_STYLE, resolve, url

LOCAL = "http://127.0.0.1:9000"
BUCKET_CHARACTERS = "abcyz019AZ.-_"
BUCKETS = st.one_of(
    st.sampled_from(["a" * 63, "a" * 64, "192.168.0.1", "-a-", "a..b", "x--x-s3x", "1--y--x-s", "s3alias"]),
    st.text(BUCKET_CHARACTERS, min_size=1, max_size=12).filter(lambda name: name not in (".", "..")),
)
HOSTS = st.sampled_from(["127.0.0.1", "[::1]", "localhost", "minio", "host.example", "a.b.c.example"])
ENDPOINTS = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https"]),
    HOSTS,
    st.sampled_from(["", ":80", ":443", ":9000"]),
    st.sampled_from(["", "/", "/base", "/base/deep/", "//base"]),
)
REGIONS = st.sampled_from(["us-east-1", "eu-west-1", "cn-north-1", "nowhere"])


@pytest.fixture(scope="module")
def rules() -> EndpointProvider:
    loader = create_loader()
    return EndpointProvider(loader.load_service_model("s3", "endpoint-rule-set-1"), loader.load_data("partitions"))


def without_default_port(text: str) -> str:
    parts = urlsplit(text)
    default = {"http": ":80", "https": ":443"}[parts.scheme]
    return parts._replace(netloc=parts.netloc.removesuffix(default)).geturl()


@given(bucket=BUCKETS, endpoint=ENDPOINTS, region=REGIONS)
def test_path_style_follows_the_rules(rules: EndpointProvider, bucket: str, endpoint: str, region: str) -> None:
    oracle = rules.resolve_endpoint(Bucket=bucket, Region=region, Endpoint=endpoint, ForcePathStyle=True)
    [scheme] = oracle.properties["authSchemes"]

    found = resolve(bucket, region, endpoint, PATH_STYLE)

    assert url(found) == without_default_port(oracle.url)
    assert (found.region, found.service) == (scheme["signingRegion"], scheme["signingName"])
    assert not found.session_auth


@given(bucket=st.one_of(BUCKETS, st.just("my train")), endpoint=ENDPOINTS, force=st.booleans(), region=REGIONS)
@example(bucket="0.a", endpoint="http://[::1]", force=False, region="us-east-1")
@example(bucket="0.0", endpoint="http://127.0.0.1", force=False, region="us-east-1")
def test_both_paths_agree(bucket: str, endpoint: str, force: bool, region: str) -> None:
    config = S3ClientConfig(force_path_style=force)
    by_rules = EndpointRules(region, parse_endpoint("endpoint", endpoint), config).resolve(bucket)

    assert resolve(bucket, region, endpoint, config) == by_rules


@pytest.fixture
def resolver() -> EndpointResolver:
    return EndpointResolver("eu-west-1", None, S3ClientConfig())


@example("\U0001fbf0")  # a digit, but none that a host name may have
@given(text=st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_bucket_has_an_endpoint_or_a_clear_error(resolver: EndpointResolver, text: str) -> None:
    for bucket in (text, f"arn:{text}", f"arn:aws:s3:{text}", f"{text}--x-s3"):
        try:
            outcome = url(resolver.resolve(bucket))
        except S3ConfigurationError as error:
            outcome = str(error)
        assert outcome.startswith("https://") or repr(bucket) in outcome


# --- botocore's own client


class Captured(Exception):
    """Raised in place of sending."""


def request_of_a_client(
    session: Session, region: str, endpoint: str | None, style: str, bucket: str
) -> tuple[str, str]:
    """Return URL and Authorization of the first request that botocore would send to read ``bucket/key``."""
    client = session.create_client(
        "s3",
        region,
        endpoint_url=endpoint,
        config=Config(s3={"us_east_1_regional_endpoint": "regional", "addressing_style": style}),
        aws_access_key_id="a",
        aws_secret_access_key="s",
    )

    def capture(request: Any, **_: Any) -> None:
        raise Captured(request.url, request.headers["Authorization"].decode())

    client.meta.events.register_first("before-send.s3", capture)
    with closing(client), pytest.raises(Captured) as captured:
        client.get_object(Bucket=bucket, Key="key")
    return captured.value.args  # type: ignore[return-value]


CLIENT_BUCKETS = st.one_of(
    BUCKETS.filter(lambda name: len(name) >= 3 and ".." not in name),
    st.sampled_from([DIRECTORY_BUCKET, ACCESS_POINT, "train-abc-s3alias", "my.train"]),
)
VARIANTS = st.sampled_from([{}, {"AWS_USE_FIPS_ENDPOINT": "true"}, {"AWS_USE_DUALSTACK_ENDPOINT": "true"}])
CUSTOM = st.sampled_from([None, None, LOCAL, "https://host.example", "http://host.example/base"])


@pytest.fixture(scope="module")
def session() -> Session:
    return Session()


@settings(max_examples=40)
@given(
    bucket=CLIENT_BUCKETS,
    region=st.sampled_from(["us-east-1", "us-west-2"]),
    endpoint=CUSTOM,
    force=st.booleans(),
    variables=VARIANTS,
)
def test_a_client_of_botocore_goes_to_the_same_place(
    session: Session, bucket: str, region: str, endpoint: str | None, force: bool, variables: dict[str, str]
) -> None:
    # The rules put a name even before an IP address, where no name can be: here a dotted one is in the path, and for an
    # access point there is no endpoint.
    assume((bucket, endpoint) != (ACCESS_POINT, LOCAL))
    style = "path" if force or endpoint == LOCAL else "virtual"
    with mock.patch.dict(os.environ, variables):
        try:
            sent_to, authorization = request_of_a_client(session, region, endpoint, style, bucket)
        except EndpointResolutionError:  # such as, in old versions, dual-stack of S3 Express
            with pytest.raises(S3ConfigurationError):
                resolve(bucket, region, endpoint, S3ClientConfig(force_path_style=force))
            return
        found = resolve(bucket, region, endpoint, S3ClientConfig(force_path_style=force))

    if found.session_auth:
        assert sent_to.replace("/?", "?") == url(found) + "?session"
    else:
        assert sent_to == url(found) + "/key"
    assert f"/{found.region}/{found.service}/aws4_request" in authorization
