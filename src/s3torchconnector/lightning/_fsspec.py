"""The file system of ``s3://`` paths for Lightning, also if ``s3fs`` is installed.

Lightning passes checkpoints to its plugin. For everything else it uses fsspec: whether a path exists, what is below it,
and the small files of its loggers. This file system uses an ``S3Client``. S3 has no directories: one exists if there
are objects below it, or if this process has made it.
"""

from __future__ import annotations

import importlib.util
import io
from datetime import datetime, timezone
from types import TracebackType
from typing import Any, ClassVar, cast

import fsspec
from fsspec import AbstractFileSystem
from fsspec.core import get_compression

from s3torchconnector._errors import S3ConfigurationError, S3NotFoundError
from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo
from s3torchconnector._uri import without_slash_in_arn
from s3torchconnector.s3writer import S3Writer


def serve_s3_paths() -> None:
    """Register the file system of ``s3://`` paths in this process, unless another package has.

    Called on import: callbacks ask for their file system when they are made, often before the plugin is made.
    """
    if importlib.util.find_spec("s3fs") is None and "s3" not in fsspec.registry:
        fsspec.register_implementation("s3", S3PathFileSystem)


def use_client(client: S3Client) -> None:
    """Use this client for all ``s3://`` paths, except for those opened with storage options if ``s3fs`` is installed.

    ``s3fs`` knows neither the plugin's endpoint nor its configuration, so it would ask another server.
    """
    S3PathFileSystem.latest = client
    registered = fsspec.registry.get("s3")
    if registered is None or registered.__module__.partition(".")[0] == "s3fs":
        fsspec.register_implementation("s3", S3PathFileSystem, clobber=True)


class _UncommittedWriter(S3Writer):
    """A file written inside a transaction of fsspec: stored by ``commit``, not by ``close``."""

    def close(self) -> None:
        """Do nothing: ``commit`` stores the object, ``discard`` does not."""

    def commit(self) -> None:
        super().close()

    def discard(self) -> None:
        self.abort()


class _TextWriter(io.TextIOWrapper):
    """Text for an ``S3Writer``. After an exception it aborts the writer; the base class would store half an object."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            cast(S3Writer, self.buffer).abort()

    def __del__(self) -> None:
        return  # the writer is dropped too, and aborts itself


class S3PathFileSystem(AbstractFileSystem):
    """Objects as files, through the client of the plugin that was made last."""

    protocol = "s3"
    cachable = False
    latest: ClassVar[S3Client | None] = None
    made: ClassVar[set[str]] = set()
    """The directories that this process has made: a logger checks for its directory before it writes there."""

    def __new__(cls, *args: Any, **options: Any) -> Any:
        configured = fsspec.config.conf.get("s3", {})
        given = any(name not in configured or configured[name] != option for name, option in options.items())
        if given and importlib.util.find_spec("s3fs") is not None:  # the program says itself how to reach S3
            return importlib.import_module("s3fs").S3FileSystem(*args, **options)
        return super().__new__(cls)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        stripped = super()._strip_protocol(path)
        return stripped if isinstance(stripped, list) else without_slash_in_arn(stripped)

    @property
    def client(self) -> S3Client:
        if self.latest is None:
            raise S3ConfigurationError(
                "s3:// paths cannot be used yet: create an S3LightningCheckpoint first, which says how to reach S3"
            )
        return self.latest

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        bucket, _, key = path.partition("/")
        entries: list[dict[str, Any]] = []
        for page in self.client.list_objects(bucket, f"{key}/" if key else "", "/"):
            entries += [_directory(f"{bucket}/{prefix.rstrip('/')}") for prefix in page.common_prefixes]
            entries += [_file(bucket, info) for info in page.object_info if info.key != f"{key}/"]
        if not entries and key and path not in self.made:  # a bucket may be empty
            entries = [self._info_of_file(path)]
        return entries if detail else [entry["name"] for entry in entries]

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        bucket, _, key = path.partition("/")
        if path in self.made:
            return _directory(path)
        if key:
            try:
                return self._info_of_file(path)
            except S3NotFoundError as error:
                if error.code == "NoSuchBucket":
                    raise
        page = next(self.client.list_objects(bucket, f"{key}/" if key else "", max_keys=1))
        if page.object_info or not key:
            return _directory(path)
        raise FileNotFoundError(f"there is no object s3://{path}, and none below it")

    def exists(self, path: str, **kwargs: Any) -> bool:
        # The inherited method returns False for every error, for a denied access too.
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(self.info(path)["LastModified"], timezone.utc)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self.made.add(self._strip_protocol(path))

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        self.makedirs(path)

    def rm_file(self, path: str) -> None:
        self.client.delete_object(*self._strip_protocol(path).split("/", 1))

    def rm(self, path: str | list[str], recursive: bool = False, maxdepth: int | None = None) -> None:
        for each in [path] if isinstance(path, str) else path:
            if recursive:
                bucket, _, key = self._strip_protocol(each).partition("/")
                self.client.delete_prefix(bucket, f"{key}/")  # which refuses a whole bucket
                self.made.discard(f"{bucket}/{key}")
            self.rm_file(each)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        source, destination = self._strip_protocol(path1), self._strip_protocol(path2)
        try:
            self.client.copy_object(*source.split("/", 1), *destination.split("/", 1))
        except S3NotFoundError:
            if not self.isdir(source):
                raise
            self.makedirs(destination)  # fsspec copies the objects below it one by one

    def open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        if "r" not in mode and get_compression(path, kwargs.get("compression")) is not None:
            raise NotImplementedError(
                f"{path} cannot be written with compression=...: fsspec's compressor does not close the file, so "
                "nothing would be stored. Open the file without it, and compress the data that you write"
            )
        if "b" in mode or "r" in mode:
            return super().open(path, mode, *args, **kwargs)
        text = {name: kwargs.pop(name) for name in ("encoding", "errors", "newline") if name in kwargs}
        file: Any = self.open(path, mode.replace("t", "") + "b", *args, **kwargs)
        return _TextWriter(file, **text, write_through=True)  # a transaction may commit a file that was not closed

    def _open(self, path: str, mode: str = "rb", *args: Any, autocommit: bool = True, **kwargs: Any) -> Any:
        bucket, key = path.split("/", 1)
        if mode == "rb":
            self._info_of_file(path)  # raises now if there is no object, and not at the first read
            return self.client.get_object(bucket, key)
        if mode not in ("wb", "ab"):
            raise ValueError(
                f"an object is opened with the mode 'r', 'w' or 'a', with or without 'b', not with {mode!r}"
            )
        before = self._content(bucket, key) if mode == "ab" else b""
        writer = self.client.put_object(bucket, key)
        if not autocommit:
            writer = _UncommittedWriter(writer)
        writer.write(before)
        return writer

    def _content(self, bucket: str, key: str) -> bytes:
        try:
            with self.client.get_object(bucket, key) as reader:
                return reader.read()
        except S3NotFoundError:
            return b""

    def _info_of_file(self, path: str) -> dict[str, Any]:
        bucket, _, key = path.partition("/")
        found = self.client.head_object(bucket, key)
        return _file(bucket, ObjectInfo(key, *found[:-1]))  # listings do not tell the last field


def _file(bucket: str, info: ObjectInfo) -> dict[str, Any]:
    return {
        "name": f"{bucket}/{info.key}",
        "size": info.size,
        "type": "file",
        "ETag": info.etag,
        "LastModified": info.last_modified,
    }


def _directory(name: str) -> dict[str, Any]:
    return {"name": name, "size": 0, "type": "directory"}
