"""A progress bar for listings that take long, if stderr is a terminal."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Any

from s3torchconnector._late_imports import no_fork
from s3torchconnector._uri import display_uri

_SHOWN_AFTER = 2.0  # seconds before anything is shown


class ListingProgress:
    """Counts listed keys, and shows them (by tqdm) if it takes long and stderr is a terminal."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._description = f"listing {display_uri(bucket, prefix)}"
        self._started = time.monotonic()
        self._count = 0
        self._bar: Any = None
        self._pid = 0  # of the process whose bar it is

    def advance(self, keys: int) -> None:
        """So many more keys have been listed."""
        self._count += keys
        self._leave_to_parent()
        if self._bar is not None:
            self._bar.update(keys)
        elif time.monotonic() - self._started > _SHOWN_AFTER and sys.stderr is not None and sys.stderr.isatty():
            # Imported only if something is shown: most programs never list for long.
            with no_fork:
                from tqdm import tqdm

            self._bar = tqdm(desc=self._description, unit=" keys", unit_scale=True, initial=self._count, leave=False)
            self._pid = os.getpid()

    def _leave_to_parent(self) -> None:
        """In a forked child: the bar is the parent's, which goes on showing it."""
        if self._bar is not None and self._pid != os.getpid():
            self._bar.disable = True  # or its end would clear it
            self._bar = None

    def __enter__(self) -> ListingProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave_to_parent()
        if self._bar is not None:
            self._bar.close()
