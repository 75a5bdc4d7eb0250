"""The benchmark's objects in a real bucket: uploaded below a fresh prefix, deleted whatever happens."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from benchmarks import objects
from benchmarks.job import Job

if TYPE_CHECKING:
    from s3torchconnector._s3client import S3Client

_THREADS = 16
_CHUNK = 8 << 20


class BucketError(Exception):
    """The bucket cannot be used; the text says why."""


@dataclass(frozen=True)
class Target:
    """A bucket of the user's, and below which prefix to work."""

    uri: str
    region: str
    endpoint: str | None = None
    path_style: bool = False

    @property
    def bucket(self) -> str:
        return urlsplit(self.uri).netloc

    @property
    def base(self) -> str:
        path = urlsplit(self.uri).path.strip("/")
        return f"{path}/" if path else ""

    def client(self) -> S3Client:
        from s3torchconnector._s3client import S3Client, S3ClientConfig

        config = S3ClientConfig(force_path_style=self.path_style)
        return S3Client(self.region, endpoint=self.endpoint, s3client_config=config)


@contextmanager
def uploaded(target: Target, folder: Path, small: int) -> Iterator[Job]:
    """Upload the checkpoints of `folder` and `small` small objects; yields the job that reads them."""
    source = folder / objects.BUCKET
    checkpoint = source / "checkpoint.pt"
    job = Job(
        bucket=target.bucket,
        size=checkpoint.stat().st_size,
        small_size=objects.SMALL_SIZE,
        objects=small,
        copy=str(checkpoint),
        prefix=f"{target.base}s3torchconnector-bench-{secrets.token_hex(4)}/",
        region=target.region,
        endpoint=target.endpoint,
        path_style=target.path_style,
        signed=True,
    )
    job, client = replace(job, tree=f"{job.prefix}small/"), target.client()
    try:
        with _explained(target):
            for path in sorted(source.rglob("*")):
                if path.is_file() and path.parent.name != "small":
                    _put(client, job.bucket, f"{job.prefix}{path.relative_to(source).as_posix()}", path)
            body = source / "small" / "00"
            _each(lambda number: _put(client, job.bucket, job.small(number), body), range(small))
        yield job
    finally:
        with _explained(target):
            _each(lambda key: client.delete_object(job.bucket, key), _keys(client, job))


@contextmanager
def _explained(target: Target) -> Iterator[None]:
    from s3torchconnector import S3Exception

    try:
        yield
    except S3Exception as error:
        raise BucketError(f"{target.uri}: {error}") from error


def _put(client: S3Client, bucket: str, key: str, path: Path) -> None:
    from s3torchconnector import S3Writer

    with path.open("rb") as source, S3Writer(client.put_object(bucket, key)) as writer:
        while data := source.read(_CHUNK):
            writer.write(data)


def _keys(client: S3Client, job: Job) -> list[str]:
    return [info.key for page in client.list_objects(job.bucket, job.prefix) for info in page.object_info]


def _each(action: Callable[[Any], None], items: Iterable[Any]) -> None:
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(action, items))
