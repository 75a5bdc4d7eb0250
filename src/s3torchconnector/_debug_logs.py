"""``S3_TORCH_CONNECTOR_DEBUG_LOGS`` and ``S3_TORCH_CONNECTOR_LOGS_DIR_PATH``, by which 1.5.0 writes its debug log.

The first is ``level`` or a list such as ``trace,mountpoint_s3_client=debug,awscrt=off``. The general level and the
levels for the connector's names apply; other names in the list have no effect here. The log goes to the standard
output, or into the folder of the second: to a file for each hour (UTC), at whose end all processes write.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path

FILTER = "S3_TORCH_CONNECTOR_DEBUG_LOGS"
FOLDER = "S3_TORCH_CONNECTOR_LOGS_DIR_PATH"
_LEVELS = {
    "off": logging.CRITICAL + 1, "error": logging.ERROR, "warn": logging.WARNING, "info": logging.INFO,
    "debug": logging.DEBUG, "trace": logging.DEBUG,
}  # fmt: skip
_OURS = ("s3torchconnector", "s3torchconnectorclient", "mountpoint_s3_client", "_mountpoint_s3_client")
_log = logging.getLogger("s3torchconnector")
_first = threading.Lock()  # taken by the first call, of any thread, and never released


def follow_environment() -> None:
    """Write the log that the environment asks for. Only the first call in a process looks."""
    if not _first.acquire(blocking=False):
        return
    text = os.environ.get(FILTER, "")
    level = level_of(text)
    if level is None:
        if text:
            levels = ", ".join(_LEVELS)
            _log.warning("%s=%s has no level (%s) for this package, and is ignored", FILTER, text, levels)
        return
    if level > logging.CRITICAL:
        return
    handler = _handler(os.environ.get(FOLDER))
    handler.setFormatter(_Format("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.setLevel(level)
    _log.addHandler(handler)
    if not _log.level or _log.level > level:
        _log.setLevel(level)


def level_of(text: str) -> int | None:
    """The level that a list of directives has for this package; None if it has none."""
    general, ours = None, None
    for each in text.split(","):
        name, named, word = each.strip().rpartition("=")
        level = _LEVELS.get(word.strip().lower())
        if not named:
            general = level if level is not None else general
        elif name.split("::")[0].strip() in _OURS and level is not None:
            ours = level if ours is None else min(ours, level)
    return general if ours is None else ours


def _handler(folder: str | None) -> logging.Handler:
    if folder:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            return _HourlyFile(folder)
        except OSError as error:
            _log.warning("%s=%s cannot be used, and the log goes to the standard output: %s", FOLDER, folder, error)
    return logging.StreamHandler(sys.stdout)


class _HourlyFile(logging.FileHandler):
    """``s3torchconnectorclient.log.2026-01-31-23`` in a folder, another one each hour."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder).absolute()
        super().__init__(self._path(), encoding="utf-8", delay=True)

    def _path(self) -> str:
        return str(self._folder / f"s3torchconnectorclient.log.{datetime.now(timezone.utc):%Y-%m-%d-%H}")

    def emit(self, record: logging.LogRecord) -> None:
        path = self._path()
        if path != self.baseFilename:
            self.close()
            self.baseFilename = path
        super().emit(record)


class _Format(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return f"{datetime.fromtimestamp(record.created, timezone.utc):%Y-%m-%dT%H:%M:%S.%f}Z"
