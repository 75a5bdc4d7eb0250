"""``S3FileSystem``: S3 as a file system for ``torch.distributed.checkpoint``."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystemBase

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3Exception, S3NotFoundError  # noqa: F401
from s3torchconnector._s3client import S3Client
from s3torchconnector._uri import parse_object_uri, parse_s3_uri, path_text
from s3torchconnector._user_agent import UserAgent
from s3torchconnector.dcp.s3_prefix_strategy import DefaultPrefixStrategy, S3PrefixStrategyBase  # noqa: F401
from s3torchconnector.s3reader import (
    DCPS3ReaderConstructorProtocol,  # noqa: F401 (1.5.0 has this and other names here)
    S3ReaderConstructor,
    S3ReaderConstructorProtocol,
)

__all__ = ["S3FileSystem", "StorageMetadata"]

_COLLAPSED = re.compile("^s3:/(?=[^/])")  # what pathlib makes of s3://


@dataclass
class StorageMetadata:
    """What 1.5.0 attaches to the plan of a rank: what the names of its files begin with. Nothing here reads it.

    Example:
        >>> from s3torchconnector.dcp.s3_file_system import StorageMetadata
        >>> StorageMetadata("__0_").prefix
        '__0_'
    """

    prefix: str


def client_of(
    region: str,
    endpoint: str | None,
    config: S3ClientConfig | None,
    constructor: S3ReaderConstructorProtocol | None,
    reading: str = "sequential",
) -> S3Client:
    """A client whose User-Agent says that it is of a distributed checkpoint, and how that is read."""
    reading = reading if constructor is None else S3ReaderConstructor.get_reader_type_string(constructor)
    agent = UserAgent(["dcp", torch.__version__, f"md/reader_type#{reading}"])
    return S3Client(region, endpoint=endpoint, user_agent=agent, s3client_config=config)


class S3FileSystem(FileSystemBase):
    """S3 as PyTorch's file system for checkpoints. It can be pickled.

    A path is ``s3://bucket/key``, as a string or as a ``pathlib`` path. PyTorch's ``format_utils``, and programs that
    look into checkpoints, need it; ``S3StorageWriter`` and ``S3StorageReader`` make their own.

    Args:
        region: region of the bucket, for example ``"us-east-1"``.
        s3_client: the client to use, instead of one made from the other arguments.
        s3client_config: settings of the client, see ``S3ClientConfig``.
        reader_constructor: how ``create_stream(path, "rb")`` reads, see ``S3ReaderConstructor``.
        endpoint: URL of the S3 server. By default the one that the environment or the AWS configuration names, and if
            there is none, AWS's for the region.

    Raises:
        S3ConfigurationError: (a ``ValueError``) the region cannot be used.

    Example:
        >>> from s3torchconnector.dcp import S3FileSystem
        >>> files = S3FileSystem("us-east-1")
        >>> with files.create_stream("s3://my-bucket/notes/1.txt", "wb") as stream:
        ...     stream.write(b"lr=0.1")
        6
        >>> files.ls("s3://my-bucket/notes")
        ['s3://my-bucket/notes/1.txt']
    """

    def __init__(
        self,
        region: str,
        s3_client: S3Client | None = None,
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        *,
        endpoint: str | None = None,
    ) -> None:
        self._client = s3_client or client_of(region, endpoint, s3client_config, reader_constructor)
        self._reader_constructor = reader_constructor

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[io.BufferedIOBase]:
        """Open an object for a ``with`` block, which stores nothing if it is left by an exception.

        Args:
            path: the object, ``s3://bucket/key``.
            mode: ``"rb"`` yields an ``S3Reader``, ``"wb"`` an ``S3Writer``.

        Raises:
            ValueError: another mode, or ``path`` does not name an object.
            S3Exception: an error occurred accessing S3.
        """
        bucket, key = parse_object_uri(self.init_path(path))
        if mode == "rb":
            with self._client.get_object(bucket, key, reader_constructor=self._reader_constructor) as reader:
                yield reader
        elif mode == "wb":
            with self._client.put_object(bucket, key) as writer:
                yield writer
        else:
            raise ValueError(f"an S3 object is opened to read ('rb') or to write ('wb'), not with mode={mode!r}")

    def concat_path(self, path: str | os.PathLike[str], suffix: str) -> str:
        """Join: ``path/suffix``.

        Raises:
            ValueError: ``path`` is not an ``s3://`` URI.
        """
        folder = self.init_path(path)
        return folder + suffix if folder.endswith("/") else f"{folder}/{suffix}"

    def init_path(self, path: str | os.PathLike[str]) -> str:
        """Return the path as a string.

        Raises:
            ValueError: ``path`` is not an ``s3://`` URI.
        """
        uri = _COLLAPSED.sub("s3://", path_text(path))
        parse_s3_uri(uri)
        return uri

    # By the name of 1.5.0, which is not PyTorch's.
    def rename(self, old_path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> None:
        """Copy an object, then delete the original. Saving a checkpoint does not need this.

        Raises:
            S3Exception: an error occurred accessing S3.
        """
        source, target = (parse_object_uri(self.init_path(each)) for each in (old_path, new_path))
        if source != target:
            self._client.copy_object(*source, *target)
            self._client.delete_object(*source)

    def mkdir(self, path: str | os.PathLike[str]) -> None:
        """Do nothing: S3 has no folders."""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Return whether it is an ``s3://`` URI that names a bucket."""
        try:
            parse_s3_uri(_COLLAPSED.sub("s3://", path_text(checkpoint_id)))
        except ValueError:
            return False
        return True

    def exists(self, path: str | os.PathLike[str]) -> bool:
        """Return whether there is such an object.

        Raises:
            S3Exception: an error occurred accessing S3.
        """
        try:
            self._client.head_object(*parse_object_uri(self.init_path(path)))
        except S3NotFoundError:
            return False
        return True

    def rm_file(self, path: str | os.PathLike[str]) -> None:
        """Delete an object. It is no error if there is none.

        Raises:
            S3Exception: an error occurred accessing S3.
        """
        self._client.delete_object(*parse_object_uri(self.init_path(path)))

    def ls(self, path: str | os.PathLike[str]) -> list[str]:
        """List the URIs of all objects below ``path/``.

        Raises:
            S3Exception: an error occurred accessing S3.
        """
        bucket, prefix = parse_s3_uri(self.concat_path(path, ""))
        return [f"s3://{bucket}/{info.key}" for page in self._client.list_all(bucket, prefix) for info in page]


def __getattr__(name: str) -> Any:
    """The storage reader and writer, which 1.5.0 has in this module. They import it, so it cannot import them."""
    if name in ("S3StorageReader", "S3StorageWriter"):
        return getattr(sys.modules["s3torchconnector.dcp"], name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
