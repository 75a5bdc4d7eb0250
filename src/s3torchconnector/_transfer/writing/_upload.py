"""One upload: its state, the parts that are on their way, and its end, which is one of two.

Either it is completed, and the object appears, whole. Or it is aborted, by the program, by an error, or because it was
abandoned (``_abandoned_uploads``): the object is unchanged, and no multipart upload remains.

Its state changes in ``Upload.use`` and ``Upload.abort`` alone, under the lock::

    OPEN ---- a write or close begins ----> IN_USE ---- the write succeeds ----> OPEN
                                                   ---- the close succeeds ----> COMPLETED
                                                   ---- either fails ----------> ABORTING
    OPEN ---- an abort begins ------------> ABORTING -- all is given back -----> ABORTED

An upload belongs to one thread at a time. Only an abort may come from another thread at any moment, or from a signal
handler. If it meets a write, the write fails. It does not cut off a request that makes the object appear, but waits for
it, and does nothing if the object has appeared: the server might carry the request out later, after what the program
does next.

Workers and the registry hold on to the ``Upload``, and the program to a ``PutObjectStream``. So a stream that the
program drops is noticed at once, although parts are on their way.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from enum import Enum
from functools import partial

from s3torchconnector._activity import activity
from s3torchconnector._errors import S3UploadAbortedError
from s3torchconnector._progress import Progress
from s3torchconnector._transfer.engine._runtime import OpenRuntime
from s3torchconnector._transfer.writing import _abandoned_uploads
from s3torchconnector._transfer.writing._multipart import least_of_part
from s3torchconnector._transfer.writing._part_buffer import PartBuffer
from s3torchconnector._transfer.writing._upload_requests import UploadRequests
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import CancelledByCaller, CancelToken, CompletedPart


class State(Enum):
    """What an upload is doing; see the module for what leads from one to another."""

    OPEN = "open"
    IN_USE = "in use"
    ABORTING = "being aborted"
    ABORTED = "aborted"
    COMPLETED = "completed"


SendPart = Callable[[Callable[[], str], int, CancelToken], CompletedPart]
_OPEN, _IN_USE = State.OPEN, State.IN_USE  # looking a member up takes 0.1 us, at every write (CPython 3.11)


class Upload:
    """One upload to ``requests``' key. It keeps the client of ``open_runtime`` open.

    Args:
        least: bytes that each part but the last must have; by default as few as S3 takes.

    Attributes:
        size: bytes written so far.
        number: of the part that is being filled, from 1.
        filling: that part.
        progress: counts the bytes of the parts that were sent.
        ends_progress: whether it ends with this upload.
    """

    def __init__(self, open_runtime: OpenRuntime, requests: UploadRequests, least: int | None = None) -> None:
        self._open_runtime = open_runtime  # without its client, the threads would end
        runtime = open_runtime()
        self._requests = requests
        self._budget = runtime.budget
        self._lane = runtime.lane()
        self._pid = os.getpid()
        self._lock = threading.RLock()  # held by the thread that writes, closes or aborts
        self._state = State.OPEN
        self._error: BaseException | None = None  # why it was aborted
        self._cancel = CancelToken()
        self._cancel_creation = CancelToken()
        self._upload_id: Future[str] | None = None  # None unless there will be a second part
        self._parts: list[Future[CompletedPart]] = []
        self._failures: list[BaseException] = []  # of parts
        self._least = least
        self.progress: Progress | None = None
        self.ends_progress = False
        self.size = 0
        self.number = 1
        self.filling = self._new_part()
        _abandoned_uploads.add(self)

    @property
    def state(self) -> State:
        return self._state

    @property
    def is_open(self) -> bool:
        """Whether it has ended neither way, and belongs to this process."""
        return self._state in (State.OPEN, State.IN_USE) and self._pid == os.getpid()

    @property
    def checksum(self) -> str | None:
        """The checksum of the stored object; None before that, or if nothing was summed."""
        return self._requests.checksum() if self._state is State.COMPLETED else None

    def __repr__(self) -> str:
        uri = display_uri(self._requests.bucket, self._requests.key)
        return f"<upload of {uri}, {self._state.value}, {self.size} bytes>"

    # -- the state ------------------------------------------------------------------------------------------------

    def use(self, action: Callable[[], object], then: State = _OPEN) -> None:
        """Call ``action`` while no other thread uses the upload. The state is ``then`` afterwards; if the action fails,
        the upload is aborted.

        Raises:
            S3UploadAbortedError: the upload has ended, or belongs to the parent of this process.
            RuntimeError: a signal handler calls this while the same thread writes or closes.
        """
        self._check_usable()  # before the lock, which a forked child must not wait for
        with self._lock:
            if self._state is not _OPEN:
                self._check_usable()  # another thread may have aborted it in the meantime
                raise RuntimeError(f"{self!r}: a write or close was interrupted by another one, on the same thread")
            try:
                self._state = _IN_USE
                action()
                self._state = then
                if then is _OPEN:
                    self._cancel.check()  # a signal handler may have aborted it in the meantime
            except BaseException as error:  # also KeyboardInterrupt: some of the data may be missing now
                # An assignment, not a call: the next interrupt may happen at a call, and nothing could abort the upload
                # then.
                self._state = State.ABORTING
                self._fail(error)
                raise

    @activity("aborts {}", "self")
    def abort(self, seconds: float | None = None) -> None:
        """End it without an object. Does nothing if it has ended, or is the parent's of this process.

        Args:
            seconds: how long S3 may take; by default, as long as ``seconds_to_abort`` says.
        """
        if self._state is State.COMPLETED or self._pid != os.getpid():
            return
        self._cancel.cancel()  # at once: a write or close under way ends, which the lock then waits for
        with self._lock:
            if self._state not in (State.OPEN, State.ABORTING):
                return  # ended, or in use by this thread, which a signal handler has interrupted: it finds out next
            self._state = State.ABORTING
            self._undo(time.perf_counter() + (_abandoned_uploads.seconds_to_abort() if seconds is None else seconds))
            _abandoned_uploads.discard(self)  # not before: if this is interrupted, it is done at exit
            self._state = State.ABORTED

    def _check_usable(self) -> None:
        if self._pid != os.getpid():
            raise S3UploadAbortedError(
                f"{self!r} was opened by the parent of this process, and belongs to it: open a writer in this process"
            )
        if self._state is not _OPEN and self._state is not _IN_USE:
            how = "completed" if self._state is State.COMPLETED else "aborted"
            reason = f": {self._error}" if self._error else ""
            uri = display_uri(self._requests.bucket, self._requests.key)
            raise S3UploadAbortedError(f"the upload of {uri} was {how}{reason}") from self._error
        if self._failures:  # to ask every part at every write would cost more than the write
            self._fail(self._failures[0])
            raise self._failures[0]

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, (CancelledByCaller, CancelledError)):  # by ``abort``, which waits or came too early
            self.abort()
            self._check_usable()  # raises, and says so
        self._error = error
        self.abort()

    # -- what a user of it does -----------------------------------------------------------------------------------

    def demand_parts_of(self, size: int) -> None:
        """Have each part but the last take so many bytes. For an upload of which nothing is written."""
        self._least = size
        self.filling = self._new_part()

    def begin_parts(self) -> Future[str]:
        """Have a worker ask for the id of a multipart upload, unless that has happened. Returns what will be the id."""
        if self._upload_id is None:
            self._upload_id = self._lane.submit(self._create)
        return self._upload_id

    def send_part(self) -> None:
        """Have a worker send the part that is being filled, and begin the next one."""
        full = self.filling  # until the callback below is set: if this is interrupted before, ``abort`` releases it
        part = self.add_part(partial(_send_body, self._requests, full))
        part.add_done_callback(partial(_part_done, full, self.progress))
        self.filling = self._new_part()

    def add_part(self, send: SendPart) -> Future[CompletedPart]:
        """Have a worker call ``send`` with what returns the id of the upload, once there is one, and the number of the
        next part.
        """
        identifier = partial(self._identifier, self.begin_parts())
        part = self._lane.submit(partial(send, identifier, self.number, self._cancel))
        part.add_done_callback(partial(_note_failure, self._failures))
        self._parts.append(part)
        self.number += 1
        return part

    def store(self) -> None:
        """Make the object appear: by one PUT if there is only one part, or else by completing the multipart upload."""
        if self._upload_id is None:
            self._requests.put(self.filling.body(), self._cancel)
        else:
            if self.filling.size:
                self.send_part()
            upload_id = self._upload_id.result()
            self._requests.complete(upload_id, [part.result() for part in self._parts], self.size)
        self.filling.release()
        _abandoned_uploads.discard(self)
        self._end_progress()

    def _end_progress(self) -> None:
        if self.progress is not None and self.ends_progress:
            self.progress.close()

    def _new_part(self) -> PartBuffer:
        is_alone = partial(_all_done, self._parts)  # not of self: a cycle would delay the end of a dropped stream
        return PartBuffer(self._budget, is_alone, self._least or least_of_part(self.number))

    def _create(self) -> str:
        self._cancel.check()
        # Not with the token of the parts: if S3 may have begun an upload, its id must be known, to abort it.
        return self._requests.create(self._cancel_creation)

    def _identifier(self, upload_id: Future[str]) -> str:
        identifier = upload_id.result()
        self._cancel.check()  # memory that was lent may be the program's again
        return identifier

    # -- its end without an object --------------------------------------------------------------------------------

    def _undo(self, until: float) -> None:
        self._end_progress()
        upload_id = self._upload_id
        for part in self._parts:
            part.cancel()
        if upload_id is not None:
            upload_id.cancel()  # if no worker has begun to ask for it
            if not wait([upload_id], _left(until)).done:  # parts may be waiting for it
                self._cancel_creation.cancel()
        wait(self._parts, _left(until))
        self.filling.release()
        if upload_id is None:
            return
        if upload_id.done() and not upload_id.cancelled() and upload_id.exception() is None:
            self._requests.abort(upload_id.result(), _left(until))
        elif self._cancel_creation.cancelled:
            self._requests.warn_of_creation()


def _send_body(
    requests: UploadRequests, part: PartBuffer, upload_id: Callable[[], str], number: int, cancel: CancelToken
) -> CompletedPart:
    return requests.send_part(upload_id, number, part.body(), cancel)


def _part_done(part: PartBuffer, progress: Progress | None, sent: Future[CompletedPart]) -> None:
    if progress is not None and not sent.cancelled() and sent.exception() is None:
        progress.advance(part.size)
    part.release()


def _left(until: float) -> float:
    """The seconds until then, and at least one: for what only has to find out that it is over."""
    return max(1.0, until - time.perf_counter())


def _all_done(parts: list[Future[CompletedPart]]) -> bool:
    return all(part.done() for part in reversed(parts))  # the last ones are the likeliest to be on their way


def _note_failure(failures: list[BaseException], part: Future[CompletedPart]) -> None:
    error = None if part.cancelled() else part.exception()
    if error is not None:
        failures.append(error)
