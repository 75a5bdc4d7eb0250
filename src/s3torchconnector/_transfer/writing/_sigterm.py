"""SIGTERM during a save: undo the unfinished work, then end the process as the signal would have.

The default action of SIGTERM ends a process immediately and would leave the parts of open uploads stored, and billed.
So while there is something to undo, and only if the program has left the default action in place, our handler undoes it
first and then sends the signal again, to the default action.

- The handler undoes it on a separate thread, because the main thread may hold any lock.
- Only the main thread can set handlers. A program that saves on other threads alone keeps the default action.
- If a program sets its own handler in the meantime, the program decides what happens to the process: if its handler
  calls ours, ours does nothing.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType


class SigtermHandler:
    """One process's handler of SIGTERM.

    Args:
        undo: called on a thread when SIGTERM has come, before the process ends.

    Attributes:
        ending: whether SIGTERM is ending the process.
    """

    def __init__(self, undo: Callable[[], object]) -> None:
        self._undo = undo
        self._installed = False
        self.ending = False

    def install(self) -> None:
        """Handle SIGTERM from now on, if this is the main thread and the program has left the default in place."""
        if self._installed or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._handle)
        # It may have been ours before: a program that had set another handler has put ours back.
        self._installed = self._is_current()

    def remove(self) -> None:
        """Put the default action back, if this is the main thread. A handler of the program's own stays."""
        if self._installed and threading.current_thread() is threading.main_thread():
            if self._is_current():
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._installed = False

    def reset(self) -> None:
        """In a forked child: a signal that its parent got does not end it."""
        self.ending = False
        self.remove()

    def _is_current(self) -> bool:
        return self._handle == signal.getsignal(signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._is_current():
            return  # called by the program's own handler, which was set later and decides
        self.ending = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second SIGTERM ends the process at once
        # Not a daemon: a main thread that meets its aborted upload and exits must wait here until the signal ends it.
        threading.Thread(target=self._undo_and_die, name="s3torchconnector sigterm", daemon=False).start()

    def _undo_and_die(self) -> None:
        self._undo()
        os.kill(os.getpid(), signal.SIGTERM)
