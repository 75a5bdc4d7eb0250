"""The files that one save writes on one rank: uploads that end together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from s3torchconnector._errors import S3UploadAbortedError
from s3torchconnector._torch_archives import ArchiveWriter
from s3torchconnector._transfer import abort_together
from s3torchconnector.dcp._lend import LendingPlanner
from s3torchconnector.dcp.s3_file_system import S3FileSystem
from s3torchconnector.s3writer import S3Writer


class Uploads:
    """The uploads of one save on this rank, which end together when one fails.

    Args:
        count: how many there will be.
        when_written: called when all bytes of all of them have been handed over, before the last is completed.
    """

    def __init__(self, file_system: S3FileSystem, count: int, when_written: Callable[[], object]) -> None:
        self._file_system = file_system
        self._unwritten = count
        self._when_written = when_written
        self._lock = threading.Lock()
        self._streams: list[S3Writer] = []
        self._aborted = False

    @contextmanager
    def create_stream(self, planner: LendingPlanner, path: str, mode: str) -> Iterator[S3Writer]:
        """``S3FileSystem.create_stream`` for one of the files, into which goes what ``planner`` resolves.

        Raises:
            S3UploadAbortedError: another one has failed.
        """
        with self._file_system.create_stream(path, mode) as stream:
            assert isinstance(stream, S3Writer)
            with self._lock:
                if self._aborted:
                    raise S3UploadAbortedError(f"{path} is not written, since another file of this save failed")
                self._streams.append(stream)
            writer = ArchiveWriter(stream.stream, planner.lendable, self._written)
            yield writer
            writer.close()  # PyTorch does, in some versions

    def _written(self) -> None:
        with self._lock:
            self._unwritten -= 1
            last = not self._unwritten
        if last:
            self._when_written()

    def abort(self) -> None:
        """Give up what is being written, and what would be. Writing it raises an error from now on."""
        with self._lock:
            self._aborted = True
        abort_together(stream.stream for stream in self._streams)
