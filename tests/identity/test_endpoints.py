"""Endpoints of AWS, the settings on which they depend, and the case that needs no botocore."""

from __future__ import annotations

import os
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._identity import EndpointResolver
from tests.identity.conftest import AwsFiles
from tests.identity.support import ACCESS_POINT, DIRECTORY_BUCKET, PATH_STYLE, resolve, url

# --- AWS's own endpoints


@pytest.mark.parametrize(
    ("bucket", "region", "expected"),
    [
        ("train", "eu-west-1", "https://train.s3.eu-west-1.amazonaws.com"),
        ("train", "us-east-1", "https://train.s3.us-east-1.amazonaws.com"),
        ("train", "cn-north-1", "https://train.s3.cn-north-1.amazonaws.com.cn"),
        ("train", "us-gov-west-1", "https://train.s3.us-gov-west-1.amazonaws.com"),
        # A certificate covers one label: a dotted name goes into the path.
        ("my.train", "eu-west-1", "https://s3.eu-west-1.amazonaws.com/my.train"),
        ("Train", "eu-west-1", "https://s3.eu-west-1.amazonaws.com/Train"),
        ("my train", "eu-west-1", "https://s3.eu-west-1.amazonaws.com/my%20train"),
        ("train-abc-s3alias", "eu-west-1", "https://train-abc-s3alias.s3.eu-west-1.amazonaws.com"),
    ],
)
def test_buckets_of_aws(bucket: str, region: str, expected: str) -> None:
    endpoint = resolve(bucket, region)

    assert url(endpoint) == expected
    assert endpoint[5:8] == (region, "s3", False)
    assert (endpoint.host, endpoint.port) == (urlsplit(expected).hostname, 443)


def test_path_style_of_aws() -> None:
    assert url(resolve("train", config=PATH_STYLE)) == "https://s3.eu-west-1.amazonaws.com/train"


def test_the_global_region_signs_as_us_east_1() -> None:
    assert resolve("train", "aws-global").region == "us-east-1"


def test_access_point_brings_its_region() -> None:
    endpoint = resolve(ACCESS_POINT, config=PATH_STYLE)

    assert url(endpoint) == "https://train-123456789012.s3-accesspoint.us-west-2.amazonaws.com"
    assert endpoint[5:8] == ("us-west-2", "s3", False)


def test_object_lambda_and_outposts_are_signed_for_their_service() -> None:
    lambdas = resolve("arn:aws:s3-object-lambda:us-west-2:123456789012:accesspoint/resize")
    outpost = resolve("arn:aws:s3-outposts:us-west-2:123456789012:outpost:op-01:accesspoint:train")

    assert lambdas.host == "resize-123456789012.s3-object-lambda.us-west-2.amazonaws.com"
    assert lambdas[5:8] == ("us-west-2", "s3-object-lambda", False)
    assert outpost.host == "train-123456789012.op-01.s3-outposts.us-west-2.amazonaws.com"
    assert outpost[5:8] == ("us-west-2", "s3-outposts", False)


def test_directory_bucket_asks_for_a_session() -> None:
    endpoint = resolve(DIRECTORY_BUCKET, "us-west-2", config=PATH_STYLE)

    assert url(endpoint) == f"https://{DIRECTORY_BUCKET}.s3express-usw2-az1.us-west-2.amazonaws.com"
    assert endpoint[5:8] == ("us-west-2", "s3express", True)


def test_directory_bucket_without_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_S3_DISABLE_EXPRESS_SESSION_AUTH", "true")

    assert resolve(DIRECTORY_BUCKET, "us-west-2")[5:8] == ("us-west-2", "s3express", False)


@pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:9000", "https://s3.example/base"])
def test_multi_region_access_point_is_signed_asymmetrically(endpoint: str | None) -> None:
    found = resolve("arn:aws:s3::123456789012:accesspoint:mfzwi23gnjvgw.mrap", endpoint=endpoint)
    assert url(found) == "https://mfzwi23gnjvgw.mrap.accesspoint.s3-global.amazonaws.com"
    assert found[5:] == ("*", "s3", False, True)


# --- settings


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "https://train.s3.dualstack.us-east-2.amazonaws.com"),
        ({"AWS_USE_FIPS_ENDPOINT": "true"}, "https://train.s3-fips.us-east-2.amazonaws.com"),
        (
            {"AWS_USE_FIPS_ENDPOINT": "TRUE", "AWS_USE_DUALSTACK_ENDPOINT": "True"},
            "https://train.s3-fips.dualstack.us-east-2.amazonaws.com",
        ),
        ({"AWS_USE_FIPS_ENDPOINT": "false"}, "https://train.s3.us-east-2.amazonaws.com"),
        ({"AWS_ENDPOINT_URL": "http://all:9000"}, "http://all:9000/train"),
        ({"AWS_ENDPOINT_URL": "https://all.example"}, "https://train.all.example"),
        ({"AWS_ENDPOINT_URL": "http://all", "AWS_ENDPOINT_URL_S3": "http://s3"}, "http://s3/train"),
        ({"AWS_ENDPOINT_URL": "http://all", "AWS_ENDPOINT_URL_S3": ""}, "http://all/train"),
        ({"AWS_ENDPOINT_URL": "http://all", "AWS_USE_FIPS_ENDPOINT": "true"}, "http://all/train"),
        (
            {"AWS_ENDPOINT_URL_S3": "http://s3", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
            "https://train.s3.us-east-2.amazonaws.com",
        ),
        (
            {"AWS_ENDPOINT_URL_S3": "http://s3", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "no"},
            "http://s3/train",
        ),
    ],
)
def test_environment(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert url(resolve("train", "us-east-2")) == expected


SERVICES = "[default]\nendpoint_url = http://all\nservices = lab\n[services lab]\ns3 =\n  endpoint_url = http://s3\n"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("[default]\nendpoint_url = http://all\n", "http://all/train"),
        (SERVICES, "http://s3/train"),
        (
            "[default]\nendpoint_url = http://all\nignore_configured_endpoint_urls = true\n",
            "https://train.s3.us-east-2.amazonaws.com",
        ),
        ("[default]\ns3 =\n  addressing_style = path\n", "https://s3.us-east-2.amazonaws.com/train"),
        (
            "[default]\ns3 =\n  use_dualstack_endpoint = true\n",
            "https://train.s3.dualstack.us-east-2.amazonaws.com",
        ),
        ("[default]\nuse_fips_endpoint = true\n", "https://train.s3-fips.us-east-2.amazonaws.com"),
        ("[default]\ns3 =\n  use_accelerate_endpoint = true\n", "https://train.s3-accelerate.amazonaws.com"),
    ],
)
def test_configuration_file(aws_files: AwsFiles, config: str, expected: str) -> None:
    aws_files.config.write_text(config)

    assert url(resolve("train", "us-east-2")) == expected


def test_the_config_file_can_disable_the_environments_endpoint(
    aws_files: AwsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws_files.config.write_text("[profile aws]\nignore_configured_endpoint_urls = true\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3")

    assert resolve("train", config=S3ClientConfig(profile="aws")).host == "train.s3.eu-west-1.amazonaws.com"
    assert resolve("train").host == "s3"


def test_use_arn_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_S3_USE_ARN_REGION", "false")

    with pytest.raises(S3ConfigurationError, match="region from ARN `us-west-2` does not match"):
        resolve(ACCESS_POINT)


def test_settings_match_the_profile(aws_files: AwsFiles) -> None:
    aws_files.config.write_text("[profile lab]\nendpoint_url = http://lab:9000\n")

    assert resolve("train", config=S3ClientConfig(profile="lab")).host == "lab"
    with pytest.raises(S3ConfigurationError, match="absent"):
        resolve("train", config=S3ClientConfig(profile="absent"))


def test_a_services_section_that_is_missing_is_named(aws_files: AwsFiles) -> None:
    aws_files.config.write_text("[default]\nservices = lab\n")

    with pytest.raises(S3ConfigurationError, match="'lab'"):
        resolve("train")


def test_endpoints_are_cached() -> None:
    resolver = EndpointResolver("eu-west-1", None, S3ClientConfig())

    assert resolver.resolve("train") is resolver.resolve("train")
    assert resolver.resolve("train") != resolver.resolve("other")


# --- the fast path


LOCAL_SERVERS = """
import sys
from s3torchconnector._config import S3ClientConfig
from s3torchconnector._identity import EndpointResolver

plain, path_style = S3ClientConfig(), S3ClientConfig(force_path_style=True)
for endpoint, config in [
    ("http://127.0.0.1:1", plain), ("http://[::1]", plain), ("localhost", plain), (None, plain),
    ("https://host.example", path_style),
]:
    assert EndpointResolver("us-east-1", endpoint, config).resolve("train").path == "/train"
assert "botocore" not in sys.modules
"""


def test_local_servers_need_no_botocore() -> None:
    environment = {**os.environ, "AWS_ENDPOINT_URL_S3": "http://minio:9000"}

    subprocess.run([sys.executable, "-c", LOCAL_SERVERS], env=environment, check=True, timeout=60)
