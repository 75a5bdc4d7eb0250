"""A manifest as an object of S3: stored once, fetched once by a node."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from s3torchconnector._config import MIB
from s3torchconnector._datasets._rows import Samples
from s3torchconnector._datasets._sample_rows import samples_of
from s3torchconnector._errors import S3ConfigurationError, S3FormatError, S3NotFoundError
from s3torchconnector._late_imports import no_fork
from s3torchconnector._mapped_bytes import MappedBytes, write
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer import start_over_if_refused
from s3torchconnector._uri import display_uri, parse_object_uri

if TYPE_CHECKING:
    from s3torchconnector.s3reader import S3Reader

_AT_A_TIME = 8 * MIB


def store(client: S3Client, uri: str, rows: Samples, *, overwrite: bool) -> None:
    """Store the manifest as one object.

    Raises:
        S3ObjectExistsError: there is one, and it was not to be overwritten.
        S3Exception: an error occurred accessing S3.
    """
    start_over_if_refused(partial(_store, client, uri, rows.memory.view, overwrite))


def _store(client: S3Client, uri: str, view: memoryview, overwrite: bool) -> None:
    stream = client.put_object(*parse_object_uri(uri), overwrite=overwrite).stream
    try:
        stream.expect(len(view))
        for at in range(0, len(view), _AT_A_TIME):
            stream.write(view[at : at + _AT_A_TIME])
        stream.close()
    except BaseException:
        stream.abort()
        raise


def fetch(client: S3Client, uri: str, directory: str | None) -> Samples:
    """The manifest of an object.

    Args:
        client: what it is fetched by.
        uri: the object.
        directory: where the processes of a node keep one file of it.

    Raises:
        S3ConfigurationError: ``directory`` was given, and the system has no locks for files (Windows).
        S3FormatError: it is no manifest, or a damaged one.
        S3Exception: an error occurred accessing S3.
    """
    bucket, key = parse_object_uri(uri)
    with _named_in_errors(display_uri(bucket, key)):
        if directory is None:
            with client.get_object(bucket, key) as reader:
                return _received(reader)
        return _fetch_once(client, bucket, key, directory)


def received(reader: S3Reader, uri: str) -> Samples:
    """The manifest of an object that is open already.

    Raises:
        S3FormatError: it is no manifest, or a damaged one.
        S3Exception: an error occurred accessing S3.
    """
    with _named_in_errors(uri):
        return _received(reader)


def _received(reader: S3Reader) -> Samples:
    return samples_of(MappedBytes.filled(_size(reader), lambda view: _receive(reader, view)))


def _fetch_once(client: S3Client, bucket: str, key: str, directory: str) -> Samples:
    """The node's file, fetched by the first process that needs it while the others wait.

    The file's name contains the ETag, so an overwritten object gets another file. The file appears under that name when
    it is complete and checked. The lock belongs to the kernel, which releases it if its owner is killed.
    """
    head = client.head_object(bucket, key)
    name = hashlib.sha256(repr((client.endpoint, bucket, key, head.etag, head.size)).encode()).hexdigest()[:32]
    path = os.path.join(directory, f"{name}.s3manifest")
    os.makedirs(directory, exist_ok=True)
    while True:
        with contextlib.suppress(FileNotFoundError):
            return samples_of(MappedBytes.of_file(path), trusted=True)
        with _locked(f"{path}.partial") as descriptor:
            if descriptor is not None:
                _fill_file(client, bucket, key, descriptor, path)


def _fill_file(client: S3Client, bucket: str, key: str, descriptor: int, path: str) -> None:
    """Make the node's file of the partial one that is locked, unless another process has made it before."""
    try:
        if not os.path.exists(path):
            with client.get_object(bucket, key) as reader:
                write(descriptor, _size(reader), lambda view: _receive(reader, view))
            samples_of(MappedBytes.of_file(f"{path}.partial"))
            os.replace(f"{path}.partial", path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}.partial")


@contextlib.contextmanager
def _locked(path: str) -> Iterator[int | None]:
    """A file that belongs to this process alone until the block is left; None if it lost its name meanwhile."""
    with no_fork:
        try:
            import fcntl
        except ImportError:
            raise S3ConfigurationError(
                "directory= needs locks of POSIX, which this system does not have: leave it out, and each process "
                "fetches the manifest"
            ) from None
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor if _is_named(descriptor, path) else None
    finally:
        os.close(descriptor)


def _is_named(descriptor: int, path: str) -> bool:
    """Whether the path still leads to the file: the previous owner of the lock may have renamed it, or failed and
    deleted it.
    """
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    own = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (own.st_dev, own.st_ino)


def _size(reader: S3Reader) -> int:
    """The object's size, from the response that brings its beginning."""
    reader.prefetch()
    size = reader.seek(0, os.SEEK_END)
    reader.seek(0)
    if not size:
        raise S3FormatError("it is empty")
    return size


def _receive(reader: S3Reader, view: memoryview) -> None:
    done = 0
    while done < len(view) and (count := reader.readinto(view[done:])):
        done += count


@contextlib.contextmanager
def _named_in_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except S3FormatError as error:
        raise S3FormatError(
            f"{uri} cannot be used as a manifest: {error}. Store it again with S3Manifest.save"
        ) from error


def exists(client: S3Client, uri: str) -> bool:
    """Whether there is an object.

    Raises:
        S3Exception: S3 does not tell.
    """
    try:
        client.head_object(*parse_object_uri(uri))
    except S3NotFoundError:
        return False
    return True
