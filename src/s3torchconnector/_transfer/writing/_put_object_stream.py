"""The program's handle of one upload: dropped without an end, it gives the upload up."""

from __future__ import annotations

from s3torchconnector._transfer.engine._collector import leave_to_collector
from s3torchconnector._transfer.engine._runtime import OpenRuntime
from s3torchconnector._transfer.writing import _open_uploads
from s3torchconnector._transfer.writing._upload import Upload
from s3torchconnector._transfer.writing._write_condition import CreateOnly, Overwrite
from s3torchconnector._wire import Buffer


class PutObjectStream:
    """Writes one object. Made by ``S3Client.put_object``, which says what the arguments are.

    Raises:
        S3Exception: from ``write`` and ``close``, when S3 refuses or cannot be reached.
        S3ObjectExistsError: without ``overwrite``, at once and from ``close``: there is an object.
    """

    def __init__(
        self,
        open_runtime: OpenRuntime,
        bucket: str,
        key: str,
        storage_class: str | None = None,
        *,
        overwrite: bool = True,
        summed: bool = False,
        condition: Overwrite | None = None,
    ) -> None:
        if condition is None:
            condition = Overwrite()
            if not overwrite:
                condition = CreateOnly()
                condition.refuse_existing(open_runtime().caller, bucket, key)
        self._upload = Upload(open_runtime, bucket, key, storage_class, condition, summed=summed)

    def write(self, data: Buffer, *, lent: bool = False) -> int:
        """Take ``data`` (anything with C-contiguous memory) and return its length in bytes.

        Args:
            lent: the memory stays as it is until the upload has ended. It is sent from where it is.

        Raises:
            S3UploadAbortedError: the upload has ended, or belongs to the parent of this process.
        """
        return self._upload.write(data, lent)

    def close(self) -> None:
        """Complete: return when the object is stored. A second call does nothing.

        Raises:
            S3UploadAbortedError: the upload was aborted before.
        """
        self._upload.close()

    @property
    def checksum(self) -> str | None:
        """The checksum of a stored object, such as ``CRC64NVME:rosUhgp5mIg=``; None where its bytes were not summed."""
        return self._upload.checksum

    def abort(self, seconds: float | None = None) -> None:
        """Give up: the object stays what it was before. Does nothing once the stream has ended.

        Waits for a ``close`` that is sending what would make the object appear, on another thread.

        Args:
            seconds: how long S3 may take for it; by default a minute, and less where Ctrl-C or ``sys.exit`` is the
                reason. An upload that may remain is logged as a warning.
        """
        self._upload.abort(seconds)

    def abort_later(self) -> None:
        """``abort``, by another thread: for who must not wait."""
        if self._upload.is_open:
            leave_to_collector(self._upload.abort)

    def __del__(self) -> None:
        upload = self.__dict__.get("_upload")  # absent when the constructor failed
        if upload is not None and upload.is_open:
            _open_uploads.abandon(upload)

    def __repr__(self) -> str:
        return repr(self._upload)
