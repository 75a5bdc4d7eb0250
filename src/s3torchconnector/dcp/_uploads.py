"""The files that one save writes on one rank: uploads that end together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from s3torchconnector._errors import S3UploadAbortedError
from s3torchconnector.dcp._lend import LendingPlanner, LendingWriter
from s3torchconnector.dcp.s3_file_system import S3FileSystem
from s3torchconnector.s3writer import S3Writer

_torch_config: Any
try:
    from torch.utils.serialization import config as _torch_config
except ImportError:  # before PyTorch 2.6
    _torch_config = None
_COMPUTE_CRC32 = "save.compute_crc32"


def without_record_checksums() -> AbstractContextManager[object]:
    """Have ``torch.save`` on this thread write no CRC-32 of each tensor: a quarter of a second for each GiB.

    No version of ``torch.load`` compares them, and uploads carry checksums of all bytes. In versions of PyTorch whose
    settings are not a thread's own nothing changes.
    """
    setting = getattr(_torch_config, "_config", {}).get(_COMPUTE_CRC32)
    if not isinstance(getattr(setting, "user_override", None), ContextVar):
        return nullcontext()
    patch: AbstractContextManager[object] = _torch_config.patch(_COMPUTE_CRC32, False)
    return patch


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
            writer = LendingWriter(stream.stream, planner, self._written)
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
        for stream in self._streams:
            stream.stream.abort()
