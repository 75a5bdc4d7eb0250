"""Carries out the items of ``cp``: downloads, uploads and copies inside S3, many at a time.

What is held in memory does not depend on the size or the number of files:

- *Downloads*: look-ahead requests the beginnings of the next objects, within the client's memory budget. Threads take
  one object each and write its file: at most ``_WRITERS`` at a time, with at most the budget once more in objects that
  they were handed.
- *Uploads*: at most ``_SENDERS`` files at a time, and as many as the budget has room for a few parts of each.
- *Copies*: requests alone; the bytes stay in S3.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from s3torchconnector._cli._cp._items import Item
from s3torchconnector._cli._cp._partial_files import PartialFiles
from s3torchconnector._cli._jobs import Jobs
from s3torchconnector._cli._location import Location
from s3torchconnector._cli._report import Report
from s3torchconnector._config import MIB
from s3torchconnector._errors import S3NotFoundError, S3ObjectExistsError
from s3torchconnector._etag import bare
from s3torchconnector._plural import counted
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer import look_ahead, start_over_if_refused
from s3torchconnector._types import ObjectInfo
from s3torchconnector._write_options import S3WriteOptions
from s3torchconnector.s3reader import S3Reader, S3ReaderConstructor

_WRITERS = 16
_SENDERS = 64
_PARTS_OF_LARGE = 4  # that a large upload holds, when others go on beside it
_PIECE = 1 * MIB  # of a file, read or written at a time


@dataclass(frozen=True)
class Options:
    """How to copy.

    Attributes:
        overwrite: whether what is there is replaced.
        update: whether what is there already is left out, see ``_is_same_file`` and ``_is_left_out``.
        dry_run: whether nothing is copied, but only reported.
        sync: whether files are on the disk when they get their names.
        write: what S3 is told of what is stored.
    """

    overwrite: bool = True
    update: bool = False
    dry_run: bool = False
    sync: bool = False
    write: S3WriteOptions | None = None


class Transfers:
    """Copies items. They all have the same kinds of sources and targets."""

    def __init__(self, client: S3Client, report: Report, options: Options) -> None:
        self._client = client
        self._report = report
        self._options = options
        self._part_size = client.s3client_config.part_size
        self._most_bytes = client.s3client_config.memory_budget
        self._own = threading.local()  # has the ``buffer`` of a thread
        self._jobs: Jobs
        self._files: PartialFiles

    def run(self, items: Iterable[Item], *, downloads: bool) -> None:
        """Copy all. What fails is reported, and does not stop the others."""
        with (
            PartialFiles(replace=self._options.overwrite, sync=self._options.sync) as self._files,
            Jobs(_WRITERS if downloads else _SENDERS, self._most_bytes) as self._jobs,
        ):
            if downloads:
                self._download(self._possible(items))
            else:
                for item in self._possible(items):
                    self._submit(item)

    def _possible(self, items: Iterable[Item]) -> Iterator[Item]:
        partial_files = 0
        for item in items:
            if item.is_partial:
                partial_files += 1
            elif item.refused is None:
                yield item
            else:
                self._report.failed(item.names, item.refused)
        if partial_files:
            count = counted(partial_files, "file")
            self._report.remark(f"left out {count} (.s3torch-....part) of downloads that were killed, or are under way")

    # -- downloads ----------------------------------------------------------------------------------------------------

    def _download(self, items: Iterator[Item]) -> None:
        opened: deque[Item] = deque()
        constructor = S3ReaderConstructor.sequential()

        if self._options.dry_run:
            for item in self._wanted(items):
                self._report.note(item.names, item.info.size if item.info else 0)
            return

        def open_early(item: Item) -> S3Reader:
            assert isinstance(item.source, Location)
            opened.append(item)
            return self._client.get_object(*item.source, object_info=item.info, reader_constructor=constructor)

        readers = look_ahead(map(open_early, self._wanted(items)), [self._client._runtime])
        with closing(readers):
            for reader in readers:
                item = opened.popleft()
                size = 0 if item.info is None else item.info.size
                store = partial(self._store, item, reader)
                self._jobs.submit(partial(self._report.attempt, item.names, store), min(size, self._part_size))

    def _wanted(self, items: Iterator[Item]) -> Iterator[Item]:
        """Those whose files are not there already."""
        for item in items:
            assert item.info is not None
            path = str(item.target)
            if (not self._options.overwrite and os.path.lexists(path)) or (
                self._options.update and _is_same_file(path, item.info)
            ):
                self._report.note(item.names, None)
            else:
                self._report.expect(item.info.size)
                yield item

    def _store(self, item: Item, reader: S3Reader) -> int | None:
        assert item.info is not None
        with reader:
            fill = partial(self._pour, reader)
            stored = self._files.write(str(item.target), fill, item.info.last_modified)
            return reader.tell() if stored else None

    def _pour(self, reader: S3Reader, descriptor: int) -> None:
        if not hasattr(self._own, "buffer"):
            self._own.buffer = memoryview(bytearray(_PIECE))
        buffer: memoryview = self._own.buffer
        count = _PIECE
        while count == _PIECE:  # fewer only at the end
            self._jobs.check()
            count = reader.readinto(buffer)
            write_all(descriptor, buffer[:count])
            self._report.advance(count)

    # -- uploads, and copies inside S3 --------------------------------------------------------------------------------

    def _submit(self, item: Item) -> None:
        held = 0
        if item.info is None:
            size = _size_of(str(item.source))
            self._report.expect(size)
            held = min(size, _PARTS_OF_LARGE * self._part_size)
            action = partial(self._upload, item)
        else:
            self._report.expect(item.info.size)
            action = partial(self._copy, item, item.info)
        self._jobs.submit(partial(self._report.attempt, item.names, action), held)

    def _upload(self, item: Item) -> int | None:
        assert isinstance(item.target, Location)
        with open(str(item.source), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if self._is_left_out(item.target, status.st_size, status.st_mtime):
                return None
            if self._options.dry_run:
                return status.st_size
            send = partial(self._send, item.target, file.fileno(), status)
            try:
                return start_over_if_refused(send) if stat.S_ISREG(status.st_mode) else send()
            except S3ObjectExistsError:
                return None

    def _send(self, target: Location, descriptor: int, status: os.stat_result) -> int:
        put = self._client.put_object
        with put(*target, overwrite=self._options.overwrite, options=self._options.write) as writer:
            is_file = stat.S_ISREG(status.st_mode)
            if is_file:
                os.lseek(descriptor, 0, os.SEEK_SET)
            if status.st_size > self._part_size:
                writer.stream.expect(status.st_size)
            piece = min(_PIECE, status.st_size + 1) if is_file else _PIECE
            while data := os.read(descriptor, piece):
                self._jobs.check()
                writer.write(data)
                self._report.advance(len(data))
            if is_file and _what_changes(os.fstat(descriptor)) != _what_changes(status):
                raise ValueError("the file was changed while it was read. Nothing was stored: copy it again")
            return writer.tell()

    def _copy(self, item: Item, info: ObjectInfo) -> int | None:
        assert isinstance(item.source, Location)
        assert isinstance(item.target, Location)
        if self._is_left_out(item.target, info.size, info.last_modified, info.etag):
            return None
        if self._options.dry_run:
            return info.size
        try:
            overwrite, options = self._options.overwrite, self._options.write
            self._client.copy_object(*item.source, *item.target, overwrite=overwrite, options=options)
        except S3ObjectExistsError:
            return None
        self._report.advance(info.size)
        return info.size

    def _is_left_out(self, target: Location, size: int, modified: float, etag: str | None = None) -> bool:
        """Whether an object is there that is to stay.

        With ``update``, that is one of this size, with this ETag, or stored after the source was changed last. Times
        are compared as strictly as whole seconds allow: rather copy once too often.
        """
        options = self._options
        if not options.update and (options.overwrite or not options.dry_run):
            return False
        try:
            there = self._client.head_object(*target)
        except S3NotFoundError:
            return False
        is_same = etag is not None and bare(there.etag) == bare(etag)
        return not options.overwrite or (there.size == size and (is_same or there.last_modified > modified))


def _is_same_file(path: str, info: ObjectInfo) -> bool:
    """Whether a file is there with the size and the time that a download gives it.

    S3 returns whole seconds. A file that was made within that second, or the next one, may be of a version that has
    been replaced since: rather copy once too often.
    """
    try:
        status = os.stat(path)
    except OSError:
        return False
    is_same = stat.S_ISREG(status.st_mode) and (status.st_size, int(status.st_mtime)) == (info.size, info.last_modified)
    return is_same and status.st_ctime >= info.last_modified + 2


def _what_changes(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0  # opening it shows why


def write_all(descriptor: int, data: memoryview) -> None:
    while len(data):
        data = data[os.write(descriptor, data) :]


def upload_stream(client: S3Client, target: Location, options: Options) -> int:
    """Store what comes through standard input. Return the number of bytes."""
    with client.put_object(*target, overwrite=options.overwrite, options=options.write) as writer:
        while data := sys.stdin.buffer.read(_PIECE):
            writer.write(data)
        return writer.tell()
