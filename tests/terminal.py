"""A terminal that tests look at: a pseudo-terminal in this process."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import termios
import threading
from types import TracebackType

_SECONDS = 10.0


class Terminal:
    """``with Terminal() as terminal``: ``terminal.stream`` is what a program has as ``sys.stderr``.

    What is written to it can be read at any time, and can be waited for.
    """

    def __init__(self) -> None:
        self._screen, self._line = os.openpty()
        self._stop, self._stopped = os.pipe()  # children may keep the terminal open: its end says nothing
        fcntl.ioctl(self._line, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
        self.stream = os.fdopen(self._line, "w")
        self._changed = threading.Condition()
        self._written = ""
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Terminal:
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.resume()
        os.close(self._stopped)
        self._reader.join(_SECONDS)
        self.stream.close()
        os.close(self._stop)
        os.close(self._screen)

    def _read(self) -> None:
        while self._stop not in select.select([self._screen, self._stop], [], [])[0]:
            data = os.read(self._screen, 65536)
            with self._changed:
                self._written += data.decode()
                self._changed.notify_all()

    @property
    def written(self) -> str:
        """All of it, so far."""
        with self._changed:
            return self._written

    def shown(self) -> list[str]:
        """The visible texts, in order, of a line that is overwritten again and again."""
        return [line for line in re.split("[\r\n]", self.written) if line.strip()]

    def wait_for(self, pattern: str, seconds: float = _SECONDS) -> bool:
        """Wait until what was written has a match; whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: re.search(pattern, self._written) is not None, seconds)

    def shows(self, pattern: str) -> threading.Event:
        """An event that is set once there is a match; or at last, so that a test fails and does not hang."""
        event = threading.Event()

        def watch() -> None:
            self.wait_for(pattern)
            event.set()

        threading.Thread(target=watch, daemon=True).start()
        return event

    def wait_until_cleared(self) -> bool:
        """Whether the line was written over with blanks, and the cursor is at its beginning."""
        return self.wait_for("\r *\r$")

    def suspend(self) -> None:
        """Take no output any more, as after Ctrl-S: the writer waits."""
        termios.tcflow(self._line, termios.TCOOFF)

    def resume(self) -> None:
        """Take output again."""
        termios.tcflow(self._line, termios.TCOON)
