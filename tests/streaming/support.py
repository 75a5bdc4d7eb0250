"""Objects on the real server, and transforms that pickle."""

from __future__ import annotations

from typing import Any

from s3torchconnector import S3Reader
from s3torchconnector.testing import S3Server
from tests.datasets.contract import fill
from tests.datasets.support import key_and_bytes, read

Options = dict[str, Any]


def number(reader: S3Reader) -> int:
    """The number that an object of ``numbered`` holds."""
    return int(reader.read())


def numbered(server: S3Server, bucket: str, count: int) -> str:
    """Make objects that hold their numbers, and return the URI of their prefix."""
    fill(server, bucket, {f"data/{i:04}": str(i).encode() for i in range(count)})
    return f"s3://{bucket}/data/"


def options(server: S3Server, endpoint: str | None = None) -> Options:
    """Where the server is."""
    return {"region": server.region, "endpoint": endpoint or server.endpoint}


__all__ = ["Options", "fill", "key_and_bytes", "number", "numbered", "options", "read"]
