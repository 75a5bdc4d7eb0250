"""What the tests of this layer share: resolving endpoints, and writing credentials to disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._identity import Endpoint, EndpointResolver

DIRECTORY_BUCKET = "train--usw2-az1--x-s3"
ACCESS_POINT = "arn:aws:s3:us-west-2:123456789012:accesspoint/train"
PATH_STYLE = S3ClientConfig(force_path_style=True)


def resolve(
    bucket: str, region: str = "eu-west-1", endpoint: str | None = None, config: S3ClientConfig | None = None
) -> Endpoint:
    return EndpointResolver(region, endpoint, config or S3ClientConfig()).resolve(bucket)


def url(endpoint: Endpoint) -> str:
    return f"{endpoint.scheme}://{endpoint.host_header}{endpoint.path}"


def set_environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def write_keys(path: Path, **profiles: tuple[str, str]) -> None:
    path.write_text(
        "".join(
            f"[{name}]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n"
            for name, (access, secret) in profiles.items()
        )
    )
