"""Archives, as ``tarfile`` and WebDataset write them, and what WebDataset reads of them."""

from __future__ import annotations

import importlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from typing import Any

import webdataset

from s3torchconnector import S3Client
from s3torchconnector.testing import S3Server
from tests.streaming.support import fill, options

Sample = dict[str, Any]


def tar(files: Mapping[str, bytes] | Iterable[tuple[str, bytes]], kind: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of files, in their order."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w", format=kind) as archive:
        for path, content in files.items() if isinstance(files, Mapping) else files:
            info = tarfile.TarInfo(path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return memory.getvalue()


def replace(server: S3Server, uri: str, content: bytes) -> None:
    """Store an object again."""
    bucket, _, key = uri[5:].partition("/")
    with S3Client(server.region, endpoint=server.endpoint).put_object(bucket, key) as writer:
        writer.write(content)


def by_webdataset(archives: Mapping[str, bytes]) -> list[Sample]:
    """What WebDataset reads of archives, by their URIs. It leaves files open, so it gets none."""

    def opened(uri: str, *_: Any, **__: Any) -> io.BytesIO:
        return io.BytesIO(archives[uri])

    schemes = importlib.import_module("webdataset.gopen").gopen_schemes
    before = schemes.get("s3")
    schemes["s3"] = opened
    try:
        found = list(webdataset.WebDataset(list(archives), shardshuffle=False, empty_check=False))
    finally:
        del schemes["s3"]
        schemes.update({"s3": before} if before is not None else {})
    return [{name: value for name, value in sample.items() if name != "__local_path__"} for sample in found]


__all__ = ["Sample", "by_webdataset", "fill", "options", "replace", "tar"]
