"""Uploads that nobody finished: aborted when they are dropped, when the interpreter exits, and on SIGTERM.

- *Dropped*: garbage collection may strike anywhere, also while a lock is held that an abort needs, so the finaliser
  of the program's handle only hands the upload to a thread of ours (``_collector``).
- *Exit* (``sys.exit``, an uncaught exception): an ``atexit`` hook aborts what is open. The interpreter has waited for
  threads before, so that what a save in the background writes is complete. Children of ``multiprocessing`` skip
  ``atexit``, and call finalisers before they wait for threads: there, a thread that they wait for does both.
  What is aborted then is aborted all at a time, and within seconds also where S3 does not answer.
- *SIGTERM*: its default action ends a process on the spot, and would leave the parts stored and billed. While
  uploads are open, and only where the program has left that default in place, a handler aborts them first (on a
  thread, since the main thread may hold any lock) and then lets the signal end the process as it would have.
  Handlers can be set on the main thread alone: a save that it begins, and that opens its uploads on other threads, is
  announced by ``expect_uploads``. A program that writes only on others keeps the default. A program that sets a
  handler of its own meanwhile decides: where its handler calls this one, as the one before, this one does nothing.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing.util
import os
import signal
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Iterable
from functools import partial
from types import FrameType
from typing import Protocol

from s3torchconnector._errors import S3UploadAbortedError
from s3torchconnector._transfer.engine._collector import end_collector, leave_to_collector, prepare_collector


class Upload(Protocol):
    """What can be given up, within about so many seconds, or as many as ``seconds_to_abort`` tells."""

    def abort(self, seconds: float | None = None) -> None: ...


ADVICE = (
    "It may remain, and its parts be billed: end it with S3Client.abort_multipart_upload, or by a lifecycle rule "
    "(AbortIncompleteMultipartUpload)"
)
_SECONDS = 60.0
_SECONDS_AT_THE_END = 4.0
_GRACE = 2.0  # seconds for what is late to find out and say so
_log = logging.getLogger(__name__)
_open: set[Upload] = set()
_expected: weakref.WeakSet[object] = weakref.WeakSet()  # saves that will open uploads on other threads
_exit_prepared = False  # in a child of multiprocessing
_handling_sigterm = False
_ending = False  # by SIGTERM


def add(upload: Upload) -> None:
    """An upload begins.

    Raises:
        S3UploadAbortedError: SIGTERM is ending the process, and nobody would abort it any more.
    """
    _open.add(upload)
    if _ending:
        _open.discard(upload)
        raise S3UploadAbortedError("nothing is uploaded any more: SIGTERM is ending this process")
    prepare_collector()
    _prepare_exit()
    _handle_sigterm()


def discard(upload: Upload) -> None:
    """An upload has ended."""
    _open.discard(upload)
    _release_sigterm_if_idle()


def expect_uploads(save: object) -> None:
    """``save`` begins, and opens uploads on other threads until it is settled, or dropped.

    Called on the main thread, this has SIGTERM handled. When the save is settled on another, the handler stays until
    the main thread next begins or ends something here; while nothing is open, it does what the default does.
    """
    _expected.add(save)
    _handle_sigterm()


def settle_uploads(save: object) -> None:
    """``save`` has ended: called on any thread, however often."""
    _expected.discard(save)
    _release_sigterm_if_idle()


def abandon(upload: Upload) -> None:
    """An upload is being garbage-collected. Takes no lock, so that it may run anywhere."""
    leave_to_collector(partial(_abort, upload))
    warnings.warn(f"{upload!r} was dropped without close(): it is aborted", ResourceWarning, stacklevel=3)


def seconds_to_abort() -> float:
    """How long S3 may take to abort an upload: not long where Ctrl-C or ``sys.exit`` is about to end the program.

    That is told by the exception that is being handled, whoever gives the upload up for its sake.
    """
    error = sys.exc_info()[1]
    return _SECONDS if error is None or isinstance(error, Exception) else _SECONDS_AT_THE_END


def abort_together(uploads: Iterable[Upload], seconds: float | None = None) -> None:
    """Abort all of them at a time, so that one that S3 does not answer for holds up no other. Waits no longer."""
    seconds = seconds_to_abort() if seconds is None else seconds
    until = time.perf_counter() + seconds + _GRACE
    aborts = {
        upload: threading.Thread(target=_abort, args=(upload, seconds), name="s3torchconnector-abort", daemon=True)
        for upload in uploads
    }
    try:
        for abort in aborts.values():
            abort.start()
    except RuntimeError:  # no thread to be had
        for upload in aborts:
            _abort(upload, seconds)
        return
    for upload, abort in aborts.items():
        abort.join(max(0.0, until - time.perf_counter()))
        if abort.is_alive():
            _log.warning("%r could not be aborted within %g s. %s", upload, seconds, ADVICE)


def _abort(upload: Upload, seconds: float | None = None) -> None:
    try:
        upload.abort(seconds)
    except Exception:  # on the collector's thread, at exit or on a signal: nobody is there to be told otherwise
        _log.exception("%r could not be aborted", upload)


def _abort_all() -> None:
    """End the collector, and abort what is still open, that which the collector was given among it."""
    ended = end_collector()
    abort_together(list(_open), _SECONDS_AT_THE_END)
    ended.wait(_GRACE)


def _prepare_exit() -> None:
    """A child of ``multiprocessing`` calls finalisers at its end, and no ``atexit``."""
    global _exit_prepared
    if not _exit_prepared:
        _exit_prepared = True
        if multiprocessing.parent_process() is not None:
            multiprocessing.util.Finalize(None, _abort_behind_others, exitpriority=10)


def _abort_behind_others() -> None:
    """Abort what is still open when the other threads have ended that the end of this process waits for."""
    threading.Thread(target=_wait_and_abort, name="s3torchconnector-exit", daemon=False).start()


def _wait_and_abort() -> None:
    apart = {threading.main_thread(), threading.current_thread()}
    while others := {each for each in threading.enumerate() if each.is_alive() and not each.daemon} - apart:
        others.pop().join()
    _abort_all()


def _handle_sigterm() -> None:
    global _handling_sigterm
    if _handling_sigterm or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)
    # It may be there already: whoever set another handler has put this one back.
    _handling_sigterm = signal.getsignal(signal.SIGTERM) is _on_sigterm


def _release_sigterm_if_idle() -> None:
    if not _open and not _expected:
        _release_sigterm()


def _release_sigterm() -> None:
    global _handling_sigterm
    if _handling_sigterm and threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGTERM) is _on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _handling_sigterm = False


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    global _ending
    if signal.getsignal(signal.SIGTERM) is not _on_sigterm:
        return  # called by the program's own handler, which was set later: what becomes of the process is its decision
    _ending = True
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second SIGTERM does not wait
    # Not a daemon: a main thread that meets its aborted upload and exits must wait here for the signal's end.
    threading.Thread(target=_abort_and_die, name="s3torchconnector-sigterm", daemon=False).start()


def _abort_and_die() -> None:
    _abort_all()
    os.kill(os.getpid(), signal.SIGTERM)


def _forget_parents_uploads() -> None:
    """In a forked child: uploads that were open are the parent's."""
    global _open, _expected, _exit_prepared, _ending
    _open = set()
    _expected = weakref.WeakSet()
    _ending = _exit_prepared = False
    _release_sigterm()


atexit.register(_abort_all)
os.register_at_fork(after_in_child=_forget_parents_uploads)
