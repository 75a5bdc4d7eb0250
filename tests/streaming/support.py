"""Objects on the real server, and transforms that pickle."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from s3torchconnector import S3DataLoader, S3Reader, S3StreamingDataset
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


class _LoaderThatKeeps(S3DataLoader):
    """Keeps the iterator of its latest pass, to end its workers."""

    latest: Any = None

    def __iter__(self) -> Iterator[Any]:
        self.latest = super().__iter__()
        return self.latest


@contextlib.contextmanager
def loading(dataset: S3StreamingDataset, **options: Any) -> Iterator[S3DataLoader]:
    """A loader whose workers end here, also after an error: torch takes seconds for that in a garbage collection."""
    loader = _LoaderThatKeeps(dataset, **{"collate_fn": list, **options})
    try:
        yield loader
    finally:
        if loader.latest is not None and loader.num_workers:
            loader.latest._batches._shutdown_workers()


__all__ = ["Options", "fill", "key_and_bytes", "loading", "number", "numbered", "options", "read"]
