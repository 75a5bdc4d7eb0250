"""The registry of open uploads: abandoned ones are aborted, so that no part stays stored and billed.

- *The program drops its stream*: garbage collection may run anywhere, even while a lock is held that an abort needs. So
  the finaliser leaves the abort to our collector thread (``_collector``).
- *The program ends* (``sys.exit``, an uncaught exception): an ``atexit`` hook aborts what is open. By then, the
  interpreter has waited for threads, so a save that another thread was writing is complete. Children of
  ``multiprocessing`` skip ``atexit`` and call their finalisers before they wait for threads. In these children, a
  thread waits for all other threads and then aborts.
- *SIGTERM* ends the program: see ``_sigterm``. A save that the main thread begins, and that opens its uploads on other
  threads, announces them by ``expect_uploads``, since only the main thread can set the handler.

At the end of a process all uploads are aborted at a time, and within seconds even if S3 does not respond.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing.util
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Iterable
from functools import partial
from typing import Protocol

from s3torchconnector._errors import S3UploadAbortedError
from s3torchconnector._platform import at_fork
from s3torchconnector._transfer.engine._collector import end_collector, leave_to_collector, prepare_collector
from s3torchconnector._transfer.writing._sigterm import SigtermHandler


class Abortable(Protocol):
    """An upload, or a stream that writes one."""

    def abort(self, seconds: float | None = None) -> None:
        """Abort, within about so many seconds; by default, as many as ``seconds_to_abort`` says."""


ADVICE = (
    "It may remain, and its parts be billed: end it with S3Client.abort_multipart_upload, or by a lifecycle rule "
    "(AbortIncompleteMultipartUpload)"
)
_SECONDS = 60.0
_SECONDS_AT_THE_END = 4.0
_GRACE = 2.0  # more seconds for an abort that is late to find that out and to log it
_log = logging.getLogger(__name__)
_open: set[Abortable] = set()
_expected: weakref.WeakSet[object] = weakref.WeakSet()  # saves that will open uploads on other threads
_exit_prepared = False


def add(upload: Abortable) -> None:
    """An upload begins.

    Raises:
        S3UploadAbortedError: SIGTERM is ending the process, and nothing would abort the upload any more.
    """
    _open.add(upload)
    if _sigterm.ending:
        _open.discard(upload)
        raise S3UploadAbortedError("nothing is uploaded any more: SIGTERM is ending this process")
    prepare_collector()
    _prepare_exit()
    _sigterm.install()


def discard(upload: Abortable) -> None:
    """An upload has ended. May be called again."""
    _open.discard(upload)
    _remove_handler_if_idle()


def expect_uploads(save: object) -> None:
    """``save`` begins, and opens uploads on other threads until ``expect_no_more_uploads``, or until it is dropped.

    Called on the main thread, this has SIGTERM handled. If the save ends on another thread, the handler stays until the
    main thread next begins or ends an upload or a save. While nothing is open, it does what the default action does.
    """
    _expected.add(save)
    _sigterm.install()


def expect_no_more_uploads(save: object) -> None:
    """``save`` has ended. May be called on any thread, and again."""
    _expected.discard(save)
    _remove_handler_if_idle()


def abandon(upload: Abortable) -> None:
    """Have an upload aborted whose stream is being garbage-collected. Takes no lock, so that it may run anywhere."""
    leave_to_collector(partial(_abort, upload))
    warnings.warn(f"{upload!r} was dropped without close(): it is aborted", ResourceWarning, stacklevel=3)


def seconds_to_abort() -> float:
    """How long S3 may take to abort an upload: not long if Ctrl-C or ``sys.exit`` is about to end the program.

    The exception that is being handled shows that, no matter what code aborts the upload because of it.
    """
    error = sys.exc_info()[1]
    return _SECONDS if error is None or isinstance(error, Exception) else _SECONDS_AT_THE_END


def abort_together(uploads: Iterable[Abortable], seconds: float | None = None) -> None:
    """Abort all of them at a time, so that one that S3 does not respond for delays no other. Waits no longer.

    If no thread can be started for that, they are aborted one at a time, and share the time.
    """
    seconds = seconds_to_abort() if seconds is None else seconds
    until = time.perf_counter() + seconds + _GRACE
    aborts = {
        upload: threading.Thread(target=_abort, args=(upload, seconds), name="s3torchconnector abort", daemon=True)
        for upload in uploads
    }
    try:
        for abort in aborts.values():
            abort.start()
    except RuntimeError:  # no more threads can be started, as at the end of CPython 3.12.0 and 3.12.1
        end = time.perf_counter() + seconds
        for done, upload in enumerate(aborts):
            _abort(upload, max(0.0, end - time.perf_counter()) / (len(aborts) - done))
        return
    for upload, abort in aborts.items():
        abort.join(max(0.0, until - time.perf_counter()))
        if abort.is_alive():
            _log.warning("%r could not be aborted within %g s. %s", upload, seconds, ADVICE)


def _abort(upload: Abortable, seconds: float | None = None) -> None:
    try:
        upload.abort(seconds)
    except Exception:  # on the collector's thread, at exit or on SIGTERM: nobody could catch it
        _log.exception("%r could not be aborted", upload)


def _abort_all() -> None:
    """End the collector, and abort what is still open, including what was left to the collector."""
    ended = end_collector()
    abort_together(list(_open), _SECONDS_AT_THE_END)
    ended.wait(_GRACE)


def _prepare_exit() -> None:
    """A child of ``multiprocessing`` calls its finalisers at its end, and no ``atexit`` hooks."""
    global _exit_prepared
    if not _exit_prepared:
        _exit_prepared = True
        if multiprocessing.parent_process() is not None:
            multiprocessing.util.Finalize(None, _abort_all_after_threads, exitpriority=10)


def _abort_all_after_threads() -> None:
    """Start a thread that aborts what is still open, after all threads that this process waits for at its end."""
    threading.Thread(target=_wait_and_abort_all, name="s3torchconnector exit", daemon=False).start()


def _wait_and_abort_all() -> None:
    apart = {threading.main_thread(), threading.current_thread()}
    while others := {each for each in threading.enumerate() if each.is_alive() and not each.daemon} - apart:
        others.pop().join()
    _abort_all()


def _remove_handler_if_idle() -> None:
    if not _open and not _expected:
        _sigterm.remove()


def _forget_parents_uploads() -> None:
    """In a forked child: uploads that were open are the parent's."""
    global _open, _expected, _exit_prepared
    _open = set()
    _expected = weakref.WeakSet()
    _exit_prepared = False
    _sigterm.reset()


_sigterm = SigtermHandler(undo=_abort_all)
atexit.register(_abort_all)
at_fork(after_in_child=_forget_parents_uploads)
