"""The objects that a run reads: those of the user, or scratch objects, which are always deleted again."""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from s3torchconnector._cli._endings import clean_when_terminated
from s3torchconnector._cli._jobs import Jobs
from s3torchconnector._cli._location import Location
from s3torchconnector._cli._output import tell
from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo

_MIB = 1024**2
_NAME = ".s3torch-bench-"  # how the last folder of scratch objects begins
PAGES = 20  # of a listing, of 1,000 keys each, that objects are chosen from
SCRATCH_OBJECTS = 256
SCRATCH_SIZE = 110 * 1024  # bytes: a photograph of ImageNet
_LARGEST_SMALL = 8 * _MIB
_SMALLEST_LARGE = 16 * _MIB
_AT_ONCE = 16  # scratch objects that are stored at a time
_ARCHIVED = ("GLACIER", "DEEP_ARCHIVE")


class Objects(NamedTuple):
    """What is read.

    Attributes:
        small: objects of which each is one request.
        large: one that takes many; None if there is none.
        listed: how many keys were looked at.
    """

    small: Sequence[ObjectInfo]
    large: ObjectInfo | None
    listed: int

    @property
    def mean_size(self) -> float:
        """Bytes of a small object."""
        return sum(info.size for info in self.small) / len(self.small) if self.small else 0.0


def choose(infos: Sequence[ObjectInfo]) -> Objects:
    """Choose from what a listing brought."""
    usable = [each for each in infos if each.size and each.storage_class not in _ARCHIVED and _NAME not in each.key]
    small = [each for each in usable if each.size <= _LARGEST_SMALL]
    large = max(usable, key=lambda each: each.size, default=None)
    return Objects(small, large if large is not None and large.size >= _SMALLEST_LARGE else None, len(infos))


def find(client: S3Client, place: Location) -> Objects:
    """List the first keys below a prefix, and choose from them."""
    pages = itertools.islice(client.list_objects(place.bucket, place.key), PAGES)
    return choose([info for page in pages for info in page.object_info])


@contextmanager
def scratch(client: S3Client, place: Location) -> Iterator[Location]:
    """A new folder below a prefix. At the end all of it is deleted, also after an error, Ctrl-C or SIGTERM."""
    parent = place.key if place.key.endswith("/") or not place.key else f"{place.key}/"
    folder = Location(place.bucket, f"{parent}{_NAME}{secrets.token_hex(4)}/")
    tell(f"Scratch objects are below {folder}, and will be deleted.")
    with clean_when_terminated():
        try:
            yield folder
        finally:
            try:
                with _no_news_of_children():
                    _delete(client, folder)
            except BaseException:
                tell(f"s3torch: scratch objects are left below {folder}; delete them: s3torch rm --recursive {folder}")
                raise


@contextmanager
def _no_news_of_children() -> Iterator[None]:
    """In the block, SIGCHLD raises nothing. Otherwise PyTorch raises an error in the main thread when a worker was
    killed, for example by the SIGTERM that is the reason for the block."""
    number = getattr(signal, "SIGCHLD", None)  # not on Windows
    before = None if number is None else signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        if number is not None:
            signal.signal(number, before)


def _delete(client: S3Client, folder: Location) -> None:
    for upload in list(client.list_multipart_uploads(folder.bucket, folder.key)):
        client.abort_multipart_upload(folder.bucket, upload.key, upload.upload_id)
    client.delete_prefix(folder.bucket, folder.key)


def make_small(client: S3Client, folder: Location) -> list[ObjectInfo]:
    """Store scratch objects, many at a time."""
    data = os.urandom(SCRATCH_SIZE)
    with Jobs(_AT_ONCE, sys.maxsize) as jobs:
        for number in range(SCRATCH_OBJECTS):
            jobs.submit(partial(_put, client, folder, number, data))
    return describe(client, folder, "small/")


def _put(client: S3Client, folder: Location, number: int, data: bytes) -> None:
    with client.put_object(folder.bucket, f"{folder.key}small/{number:04d}") as writer:
        writer.write(data)


def describe(client: S3Client, folder: Location, name: str) -> list[ObjectInfo]:
    """The scratch objects whose names begin so."""
    return [info for page in client.list_objects(folder.bucket, folder.key + name) for info in page.object_info]
