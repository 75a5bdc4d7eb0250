"""The outcome for many objects: a line for each failure, a progress line, and figures at the end."""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from s3torchconnector._cli._endings import fail
from s3torchconnector._cli._output import print_json, print_line, printable, readable, tell
from s3torchconnector._errors import S3ConfigurationError, S3CredentialsError, S3Exception
from s3torchconnector._plural import counted
from s3torchconnector._progress import Progress

_MOST_LINES = 50  # about failures: more tell nothing new
_SHOWN_AFTER = 1.0  # seconds
_HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE)
_HOPELESS_CODES = ("NoSuchBucket", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")


@dataclass(frozen=True)
class Words:
    """How a command calls what it does: ``Words("copied", "file", "copy", "copying")``."""

    done: str
    unit: str
    verb: str
    doing: str


class Report:
    """Counts objects, and prints what is to be printed about each. Its methods may be called on any thread.

    At the end of a ``with`` block, it prints the figures. If something has failed, that is exit code 1.

    Args:
        words: of the command.
        as_json: print a line of JSON for each object.
        verbose: print a line of text for each object.
        shows_bytes: whether progress is counted in bytes, not in objects.
    """

    def __init__(self, words: Words, *, as_json: bool, verbose: bool, shows_bytes: bool = True) -> None:
        self._words = words
        self._as_json = as_json
        self._verbose = verbose
        self._shows_bytes = shows_bytes
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._done = self._skipped = self._failed = self._bytes = 0
        self._ended = False  # reports of jobs that are cut off are not needed
        self._progress = Progress(None, words.doing, "B" if shows_bytes else f"{words.unit}s", shown_after=_SHOWN_AFTER)

    def expect(self, size: int) -> None:
        """One more object was found, of so many bytes."""
        self._progress.total = (self._progress.total or 0) + (size if self._shows_bytes else 1)

    def advance(self, size: int) -> None:
        """So many more bytes have been transferred."""
        if self._shows_bytes:
            self._progress.advance(size)

    def attempt(self, names: dict[str, str], action: Callable[[], int | None]) -> None:
        """Do something with one object, and count the outcome.

        Args:
            names: what the object is called: the fields of its line of JSON.
            action: returns the number of its bytes; None if nothing had to be done.

        Raises:
            Exception: an error that all other objects would meet, too.
        """
        try:
            size = action()
        except (S3Exception, OSError, ValueError) as error:
            if is_hopeless(error):
                raise
            self.failed(names, str(error))
        else:
            self.note(names, size)

    def note(self, names: dict[str, str], size: int | None) -> None:
        """One object is done, or was skipped if the number of its bytes is None."""
        with self._lock:
            if self._ended:
                return
            if size is None:
                self._skipped += 1
            else:
                self._done += 1
                self._bytes += size
            if not self._shows_bytes:
                self._progress.advance(1)
            result = {"result": "skipped" if size is None else self._words.done}
            if self._as_json:
                self._print(print_json, {**names, **({} if size is None else {"size": size}), **result})
            elif self._verbose and size is not None:
                self._print(print_line, _line(names))

    def failed(self, names: dict[str, str], reason: str) -> None:
        """One object is not done."""
        with self._lock:
            if self._ended:
                return
            self._failed += 1
            if self._as_json:
                self._print(print_json, {**names, "result": "failed", "error": reason})
            if self._failed <= _MOST_LINES:
                self._print(tell, f"s3torch: {_line(names)}: {reason}")
            if self._failed == _MOST_LINES:
                self._print(tell, "s3torch: further failures are only counted, or listed by --json")

    def remark(self, text: str) -> None:
        """Something that a person should know, and that is no failure."""
        with self._lock:
            if not self._ended:
                self._print(tell, f"s3torch: {text}")

    def __enter__(self) -> Report:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._ended = True
        self._progress.close()
        if error is None and self._failed:
            raise fail(self._figures())
        if error is None or self._done or self._failed:
            tell(self._figures())

    def _figures(self) -> str:
        seconds = time.monotonic() - self._started
        text = f"{self._words.done} {self._count(self._done)}"
        if self._shows_bytes:
            text += f", {readable(self._bytes)} in {seconds:.1f} s ({readable(self._bytes / max(seconds, 1e-3))}/s)"
        if self._skipped:
            text += f"; skipped {self._count(self._skipped)}"
        if self._failed:
            text += f"; failed to {self._words.verb} {self._count(self._failed)}"
        return text

    def _count(self, number: int) -> str:
        return counted(number, self._words.unit)

    def _print(self, write: Callable[[Any], None], what: Any) -> None:
        """Under the lock: print without breaking the line of progress."""
        bars = getattr(sys.modules.get("tqdm"), "tqdm", None)  # imported when one is drawn
        with nullcontext() if bars is None else bars.external_write_mode():
            write(what)


def is_hopeless(error: Exception) -> bool:
    """Whether all other objects would meet the same error: the disk is full, no credentials are valid."""
    if isinstance(error, (S3CredentialsError, S3ConfigurationError)):
        return True
    if isinstance(error, S3Exception):
        return error.code in _HOPELESS_CODES
    return isinstance(error, OSError) and error.errno in _HOPELESS


def _line(names: dict[str, str]) -> str:
    return " -> ".join(map(printable, names.values()))
