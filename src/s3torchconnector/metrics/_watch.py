"""Figures at intervals, for a log or a callback."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from types import TracebackType

from s3torchconnector import _transfer
from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._latch import Latch
from s3torchconnector._metrics import Metrics
from s3torchconnector._threads import start_thread

_log = logging.getLogger("s3torchconnector.metrics")


class Watch:
    """What ``watch`` returns: ``close`` it, or use it in a ``with`` block. If neither is done, the process ends it.

    Example:
        >>> from s3torchconnector import S3Client, metrics
        >>> found = []
        >>> with S3Client("us-east-1") as client, metrics.watch(found.append, seconds=60):
        ...     data = client.get_object("my-bucket", "images/0.png").read()
        >>> [each.requests for each in found]
        [{'GetObject': {200: 1}}]
    """

    def __init__(self, callback: Callable[[Metrics], object], seconds: float, children: bool) -> None:
        self._callback = callback
        self._seconds = seconds
        self._children = children
        self._process = os.getpid()
        self._thread: int | None = None
        self._stop, self._stopped = Latch(), Latch()
        self._before = self._now()
        start_thread("metrics", self._run)

    def close(self) -> None:
        """Call the callback a last time, with the figures since it was called before, and no more.

        If the callback is being called, wait until it returns. In a forked child, and when called again, do nothing.
        """
        if os.getpid() != self._process or self._stop.is_open:
            return
        self._stop.open()
        if threading.get_ident() != self._thread:  # not by the callback
            self._stopped.wait()
            self._call()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        self._thread = threading.get_ident()
        try:
            while not self._stop.wait(self._seconds):
                self._call()
        finally:
            self._stopped.open()

    def _call(self) -> None:
        now = self._now()
        since, self._before = now - self._before, now
        try:
            self._callback(since)
        except Exception:
            _log.exception("the callback of s3torchconnector.metrics.watch failed; it will be called again")

    def _now(self) -> Metrics:
        return _transfer.of_process(children=self._children)


def watch(
    callback: Callable[[Metrics], object] | None = None, *, seconds: float = 60.0, children: bool = True
) -> Watch:
    """Every so many seconds, call ``callback`` with what was done since the last time, or log a line of it.

    It is called on a thread of its own, which no exit waits for, and once more by ``close``. An error of the callback
    is logged, and the next call comes in time. A forked child does not watch.

    Args:
        callback: takes ``Metrics``. Without one, they are logged: logger ``s3torchconnector.metrics``, level INFO.
        seconds: between two calls.
        children: whether to count the processes that this one has started, see ``process``.

    Raises:
        S3ConfigurationError: (a ``ValueError``) ``seconds`` is not positive, or more than a thread can wait.
    """
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise S3ConfigurationError(f"figures are watched at intervals of more than 0 s: seconds={seconds!r}")
    return Watch(callback or _log_line, seconds, children)


def _log_line(metrics: Metrics) -> None:
    _log.info("%s", metrics)
