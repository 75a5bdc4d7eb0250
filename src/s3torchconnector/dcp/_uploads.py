"""The files that one rank writes in one save: if one upload fails, all are aborted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from s3torchconnector._errors import S3UploadAbortedError
from s3torchconnector._progress import Progress
from s3torchconnector._torch_archives import ArchiveWriter
from s3torchconnector._transfer import abort_together
from s3torchconnector.dcp._lend import LendingPlanner
from s3torchconnector.dcp.s3_file_system import S3FileSystem
from s3torchconnector.s3writer import S3Writer


class Uploads:
    """The uploads of this rank in one save.

    Args:
        paths: which files there will be.
        when_written: called when all bytes of all files have been written, before the last upload is completed.
        progress: counts the bytes that were sent.
    """

    def __init__(
        self,
        file_system: S3FileSystem,
        paths: Iterable[str],
        when_written: Callable[[], object],
        progress: Progress,
    ) -> None:
        self._file_system = file_system
        self._progress = progress
        self._unwritten = set(paths)  # a file that is written again, see ``start_over_if_refused``, counts once
        self._when_written = when_written
        self._lock = threading.Lock()
        self._streams: list[S3Writer] = []
        self._aborted = False

    @contextmanager
    def create_stream(self, planner: LendingPlanner, path: str, mode: str, size: int = 0) -> Iterator[S3Writer]:
        """``S3FileSystem.create_stream`` for one of the files, which takes what ``planner`` returns.

        ``size`` is about how many bytes that will be; 0 if nobody knows.

        Raises:
            S3UploadAbortedError: the upload of another file has failed.
        """
        with self._file_system.create_stream(path, mode) as stream:
            assert isinstance(stream, S3Writer)
            with self._lock:
                if self._aborted:
                    raise S3UploadAbortedError(f"{path} is not written, because another file of this save failed")
                self._streams.append(stream)
            stream.stream.show_progress(self._progress)
            if size:
                stream.stream.expect(size)
            writer = ArchiveWriter(stream.stream, planner.lendable, partial(self._written, path))
            yield writer
            writer.close()  # some versions of PyTorch do not

    def _written(self, path: str) -> None:
        with self._lock:
            last = self._unwritten == {path}
            self._unwritten.discard(path)
        if last:
            self._when_written()

    def abort(self) -> None:
        """Abort all uploads, including later ones. Writing to them raises an error from now on."""
        with self._lock:
            self._aborted = True
        abort_together(stream.stream for stream in self._streams)
