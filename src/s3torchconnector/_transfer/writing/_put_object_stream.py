"""The program's end of one upload: what it writes is cut into parts, which go up while it goes on writing.

What fits into one part is a single PUT. A multipart upload begins when more is written, or with the first byte if more
is expected. A stream that the program drops without an end is aborted.
"""

from __future__ import annotations

from functools import partial

from s3torchconnector._activity import activity
from s3torchconnector._process import process_id
from s3torchconnector._progress import Progress
from s3torchconnector._transfer.engine._collector import leave_to_collector
from s3torchconnector._transfer.engine._runtime import OpenRuntime
from s3torchconnector._transfer.writing import _abandoned_uploads
from s3torchconnector._transfer.writing._multipart import MAX_PARTS, equal_part_size, size_of_part, too_large
from s3torchconnector._transfer.writing._upload import State, Upload
from s3torchconnector._transfer.writing._upload_requests import UploadRequests
from s3torchconnector._transfer.writing._write_condition import CreateOnly, Overwrite
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import Buffer
from s3torchconnector._write_options import S3WriteOptions


class PutObjectStream:
    """Writes one object. Made by ``S3Client.put_object``, which says what the arguments are.

    Attributes:
        bucket, key: the object.

    Raises:
        S3Exception: from ``write`` and ``close``, when S3 refuses or cannot be reached.
        S3ObjectExistsError: with ``overwrite=False``, at once and from ``close``: there is an object.
    """

    _process_id = staticmethod(process_id)

    def __init__(
        self,
        open_runtime: OpenRuntime,
        bucket: str,
        key: str,
        *,
        options: S3WriteOptions | None = None,
        overwrite: bool = True,
        summed: bool = False,
        condition: Overwrite | None = None,
    ) -> None:
        runtime = open_runtime()
        if condition is None and not overwrite:
            condition = CreateOnly()
            condition.look(runtime.caller, bucket, key)
        self.bucket = bucket
        self.key = key
        self._part_size = runtime.config.part_size
        self._switch = runtime.config.progress
        self._demands_equal_parts = runtime.caller.demands_equal_parts(bucket)
        self._equal_size = equal_part_size(self._part_size) if self._demands_equal_parts else None
        self._expects_parts = False
        headers = runtime.config._options_of_write(options)._headers()
        self._requests = UploadRequests(runtime.caller, bucket, key, headers, condition, summed=summed)
        self._upload = Upload(open_runtime, self._requests, self._equal_size)

    def expect(self, size: int) -> None:
        """About ``size`` bytes will be written, so that all parts can have one size. For before the first ``write``."""
        self._equal_size = equal_part_size(self._part_size, size)
        self._expects_parts = size > self._equal_size
        if self._upload.progress is not None and self._upload.ends_progress:
            self._upload.progress.total = size
        if self._demands_equal_parts:
            self._upload.use(partial(self._upload.demand_parts_of, self._equal_size))

    def show_progress(self, progress: Progress | None = None) -> None:
        """Show how much of a large object was sent, if that takes long. For before the first ``write``.

        Args:
            progress: what to count in, and others end; by default one of this object's own.
        """
        self._upload.ends_progress = progress is None
        self._upload.progress = progress or Progress(self._switch, f"saving {display_uri(self.bucket, self.key)}")

    @activity("writes to {}", "self")
    def write(self, data: Buffer, *, lent: bool = False) -> int:
        """Take ``data`` (anything with C-contiguous memory) and return its length in bytes.

        Args:
            lent: the memory stays as it is until the upload has ended. It is sent from where it is.

        Raises:
            S3UploadAbortedError: the upload has ended, or belongs to the parent of this process.
        """
        view = memoryview(data)
        self._upload.use(partial(self._fill_parts, view, lent))
        return view.nbytes

    @activity("completes {}", "self")
    def close(self) -> None:
        """Complete: return when the object is stored. A second call does nothing.

        Raises:
            S3UploadAbortedError: the upload was aborted before.
        """
        if self._upload.state is not State.COMPLETED:
            self._upload.use(self._upload.store, then=State.COMPLETED)

    @property
    def checksum(self) -> str | None:
        """The checksum of a stored object, such as ``CRC64NVME:rosUhgp5mIg=``; None if its bytes were not summed."""
        return self._upload.checksum

    @property
    def may_start_over(self) -> bool:
        """Whether the server may refuse the upload at its end for its checksums; see ``_start_over``."""
        return self._requests.may_start_over

    def abort(self, seconds: float | None = None) -> None:
        """End without an object: an existing object at this key is unchanged. Does nothing once the stream has ended.

        If another thread is in ``close``, and has sent the request that makes the object appear, this waits for it.

        Args:
            seconds: how long S3 may take; by default a minute, and less if Ctrl-C or ``sys.exit`` is the reason. A
                warning is logged for an upload that may remain.
        """
        self._upload.abort(seconds)

    def abort_later(self) -> None:
        """Have another thread ``abort``: for callers that must not wait."""
        if self._upload.is_open:
            leave_to_collector(self._upload.abort)

    def _fill_parts(self, view: memoryview, lent: bool) -> None:
        if not view.nbytes:
            return
        upload, immutable = self._upload, isinstance(view.obj, bytes)
        if self._expects_parts:  # now, and not with the first full part: S3 responds while that is filled
            self._expects_parts = False
            upload.begin_parts()
        size, view = view.nbytes, view.cast("B")
        while len(view):
            room = (self._equal_size or size_of_part(upload.number, self._part_size)) - upload.filling.size
            added = upload.filling.add(view[:room], immutable=immutable, lent=lent) if room else 0
            if not added:  # it is full, or there is no memory for more: sent, it frees some
                if upload.number == MAX_PARTS:  # now, and not when another part of up to 5 GiB is full
                    raise too_large(self.bucket, self.key, self._part_size, self._equal_size)
                upload.send_part()
            view = view[added:]
        upload.size += size

    def __del__(self) -> None:
        upload = self.__dict__.get("_upload")  # absent if the constructor failed
        if upload is not None and self._process_id() is not None and upload.is_open:
            _abandoned_uploads.abandon(upload)

    def __repr__(self) -> str:
        return repr(self._upload)
