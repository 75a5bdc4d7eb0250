"""One object being written: parts go up while the program goes on writing, and the end is one of two.

``close`` completes: the object appears, whole. ``abort`` (also: garbage collection, interpreter exit, SIGTERM, see
``_open_uploads``) leaves the object what it was before, and no multipart upload behind. What fits one part is a
single PUT; a multipart upload begins only when more arrives.

A stream belongs to one thread at a time. Parts are uploaded by workers; the first part that fails ends the upload
at the next ``write`` or at ``close``. ``PutObjectStream`` is the program's handle, whose end is noticed (see
``_put_object_stream``); ``Upload`` is what workers and ``_open_uploads`` hold on to.

Only ``abort`` may come from another thread at any moment. It lets a request that makes the object appear come to its
end, and does nothing if the object has appeared: cut off, the request might still be carried out, later than what the
program does next.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from concurrent.futures import CancelledError, Future, wait
from functools import partial

from s3torchconnector._errors import S3Exception, S3NotFoundError, S3ProtocolError, S3UploadAbortedError
from s3torchconnector._transfer.engine._runtime import OpenRuntime
from s3torchconnector._transfer.writing import _open_uploads
from s3torchconnector._transfer.writing._completion import Completion
from s3torchconnector._transfer.writing._multipart import (
    MAX_PARTS,
    least_of_part,
    md5_etag,
    multipart_etag,
    size_of_part,
    too_large,
)
from s3torchconnector._transfer.writing._part_buffer import PartBuffer
from s3torchconnector._transfer.writing._upload_checksums import UploadChecksums
from s3torchconnector._transfer.writing._write_condition import Overwrite
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import (
    Buffer,
    CancelledByCaller,
    CancelToken,
    CompletedPart,
    Response,
    operations,
    parse_http_date,
    parse_upload_id,
    read_document,
    refuse_late_error,
)

_log = logging.getLogger(__name__)


class Upload:
    """One upload; see ``PutObjectStream`` for its methods."""

    def __init__(
        self,
        open_runtime: OpenRuntime,
        bucket: str,
        key: str,
        storage_class: str | None,
        condition: Overwrite,
        *,
        summed: bool,
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._storage_class = storage_class
        self._condition = condition
        self._pid = os.getpid()
        self._state = "open"
        self._lock = threading.RLock()  # held by who writes or ends it
        self._in_use = False  # whether that is not to give it up
        self._undone = False
        self._error: BaseException | None = None
        self._open_runtime = open_runtime  # keeps the client alive: its end would take the threads away
        self._runtime = open_runtime()
        self._checksums = UploadChecksums(self._runtime.caller, bucket, summed)
        self._lane = self._runtime.lane()
        self._cancel = CancelToken()
        self._cancel_beginning = CancelToken()
        self._upload_id: Future[str] | None = None
        self._parts: list[Future[CompletedPart]] = []
        self._failures: list[BaseException] = []
        self._begun = 0  # when the multipart upload was, by the server's clock; 0 where it did not tell
        self._written = 0
        self._filling = self._new_part()
        _open_uploads.add(self)

    def write(self, data: Buffer, lent: bool = False) -> int:
        view = memoryview(data)
        self._check_open()  # before the lock, which a forked child must not wait for
        with self._lock:
            self._check_open()  # another thread may have given up meanwhile
            try:
                self._in_use = True
                if view.nbytes:
                    self._fill(view.cast("B"), immutable=isinstance(view.obj, bytes), lent=lent)
                    self._written += view.nbytes
                self._in_use = False
                self._cancel.check()  # a signal's handler may have given up meanwhile
            except BaseException as error:  # also KeyboardInterrupt: a part of the data may be missing now
                self._in_use = False  # not by a call, at which the next interrupt may strike: nobody could abort it
                self._fail(error)
                raise
        return view.nbytes

    def close(self) -> None:
        if self._state == "completed":
            return
        self._check_open()
        with self._lock:
            self._check_open()
            try:
                self._in_use = True
                self._publish()
                self._filling.release()
                _open_uploads.discard(self)
                self._in_use = False
                self._state = "completed"  # last: ``abort`` does what an interrupt has kept from being done
            except BaseException as error:
                self._in_use = False
                self._fail(error)
                raise

    def abort(self, seconds: float | None = None) -> None:
        if self._state == "completed" or self._pid != os.getpid():
            return
        self._cancel.cancel()  # at once, for a ``write`` or ``close`` under way that is then waited for
        with self._lock:
            if self._state == "completed" or self._undone or self._in_use:
                return  # in use by this thread, which a signal's handler has interrupted: it is about to find out
            self._state = "aborted"
            until = time.perf_counter() + (_open_uploads.seconds_to_abort() if seconds is None else seconds)
            for part in self._parts:
                part.cancel()
            if self._upload_id is not None:
                self._await_beginning(self._upload_id, until)
            wait(self._parts, _left(until))
            self._filling.release()
            if self._upload_id is not None:
                self._abort_upload(self._upload_id, until)
            self._undone = True
            _open_uploads.discard(self)  # not before: what was interrupted here is done at exit

    @property
    def checksum(self) -> str | None:
        return self._checksums.description() if self._state == "completed" else None

    @property
    def is_open(self) -> bool:
        """Whether it has ended neither way, and is this process's."""
        return self._state == "open" and self._pid == os.getpid()

    def __repr__(self) -> str:
        return f"<upload of {display_uri(self._bucket, self._key)}, {self._state}, {self._written} bytes>"

    # -- parts ----------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._pid != os.getpid():
            raise S3UploadAbortedError(
                f"{self!r} was opened by the process that forked this one, and is still its: open a writer here"
            )
        if self._state != "open":
            reason = f": {self._error}" if self._error else ""
            raise S3UploadAbortedError(
                f"the upload of {display_uri(self._bucket, self._key)} was {self._state}{reason}"
            ) from self._error
        if self._failures:  # asking every part at every write would cost more than the write
            self._fail(self._failures[0])
            raise self._failures[0]

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, (CancelledByCaller, CancelledError)):  # by ``abort``, which was waiting or put off
            self.abort()
            self._check_open()  # which says so
        self._error = error
        self.abort()

    def _fill(self, view: memoryview, *, immutable: bool, lent: bool) -> None:
        while len(view):
            room = size_of_part(len(self._parts) + 1, self._runtime.config.part_size) - self._filling.size
            added = self._filling.add(view[:room], immutable=immutable, lent=lent) if room else 0
            if not added:  # it is full, or there is no memory for more: sent, it makes some
                if len(self._parts) + 1 == MAX_PARTS:  # now, and not when another part of up to 5 GiB is full
                    raise too_large(self._bucket, self._key, self._runtime.config.part_size)
                self._send_part()
            view = view[added:]

    def _new_part(self) -> PartBuffer:
        is_alone = partial(_all_done, self._parts)  # not of self: a cycle would put off the end of a dropped stream
        return PartBuffer(self._runtime.budget, is_alone, least_of_part(len(self._parts) + 1))

    def _send_part(self) -> None:
        number = len(self._parts) + 1
        if self._upload_id is None:
            self._upload_id = self._lane.submit(self._create)
        full = self._filling  # until its part's end will release it: whatever interrupts this, ``abort`` does
        part = self._lane.submit(partial(self._upload, number, full, self._upload_id))
        part.add_done_callback(lambda _: full.release())
        part.add_done_callback(partial(_note_failure, self._failures))
        self._parts.append(part)
        self._filling = self._new_part()

    def _create(self) -> str:
        self._cancel.check()
        # Not with the parts' cancel token: an upload that S3 may have begun must be known, to be aborted.
        request = operations.create_multipart_upload(
            self._bucket, self._key, storage_class=self._storage_class, checksum=self._checksums.announced()
        )
        marked = self._condition.marked(request)
        return self._checksums.call(marked, self._note_begin, self._cancel_beginning)

    def _note_begin(self, response: Response) -> str:
        self._begun = parse_http_date(response.headers.get("date", ""))
        return parse_upload_id(read_document(response))

    def _upload(self, number: int, part: PartBuffer, upload_id: Future[str]) -> CompletedPart:
        identifier = upload_id.result()
        self._cancel.check()  # what was lent is not ours any more
        body = part.body()
        checksum = self._checksums.of_part(number, body)
        request = operations.upload_part(self._bucket, self._key, identifier, number, body, checksum=checksum)
        return CompletedPart(number, self._checksums.call(request, _etag_of, self._cancel))

    def _publish(self) -> None:
        if self._upload_id is None:
            self._put_whole()
        else:
            if self._filling.size:
                self._send_part()
            self._complete(self._upload_id.result())

    def _put_whole(self) -> None:
        body = self._filling.body()
        request = operations.put_object(
            self._bucket,
            self._key,
            body,
            storage_class=self._storage_class,
            checksum=self._checksums.of_part(1, body),
        )
        marked, etag = self._condition.marked(request), partial(md5_etag, body)
        publish = partial(self._condition.publish, self._checksums, marked, lambda _, answer: _etag_of(answer))
        completion = Completion(marked, self._written, etag)
        completion.run(self._runtime.caller, self._condition, partial(publish, self._cancel), self._cancel)

    def _complete(self, upload_id: str) -> None:
        parts = [part.result() for part in self._parts]
        request = operations.complete_multipart_upload(
            self._bucket, self._key, upload_id, parts, checksum=self._checksums.of_whole()
        )
        completion = Completion(request, self._written, partial(multipart_etag, parts), self._begun)
        publish = partial(self._condition.publish, self._runtime.caller, request, refuse_late_error)
        completion.run(self._runtime.caller, self._condition, publish)

    def _await_beginning(self, upload_id: Future[str], until: float) -> None:
        """Have S3 tell the upload's id, which parts may be waiting for, or give it up."""
        upload_id.cancel()  # if nobody has asked yet
        if not wait([upload_id], _left(until)).done:
            self._cancel_beginning.cancel()

    def _abort_upload(self, upload_id: Future[str], until: float) -> None:
        name = display_uri(self._bucket, self._key)
        if upload_id.cancelled() or not upload_id.done() or upload_id.exception() is not None:
            if self._cancel_beginning.cancelled:
                _log.warning(
                    "S3 did not answer whether a multipart upload of %s has begun. %s", name, _open_uploads.ADVICE
                )
            return
        try:
            request = operations.abort_multipart_upload(self._bucket, self._key, upload_id.result())
            self._runtime.caller.call(request, read_document, limit=_left(until))
        except S3NotFoundError:
            _log.debug("the upload of %s is gone already", name)
        except S3Exception as error:
            _log.warning("the multipart upload of %s could not be aborted: %s. %s", name, error, _open_uploads.ADVICE)


def _left(until: float) -> float:
    """Seconds; a few moments also after that, for what only has to find out."""
    return max(1.0, until - time.perf_counter())


def _all_done(parts: list[Future[CompletedPart]]) -> bool:
    return all(part.done() for part in reversed(parts))  # the last ones are on their way


def _note_failure(failures: list[BaseException], part: Future[CompletedPart]) -> None:
    error = None if part.cancelled() else part.exception()
    if error is not None:
        failures.append(error)


def _etag_of(response: Response) -> str:
    """The ETag of what was stored: without one, whoever answered 200 is no S3 server and stored nothing."""
    etag = response.headers.get("etag")
    if not etag:
        raise S3ProtocolError("the answer to an upload has no ETag: is the endpoint an S3 server?")
    return etag
