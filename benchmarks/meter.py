"""What one measurement costs: seconds, processor seconds with those of children, growth of memory."""

from __future__ import annotations

import gc
import resource
import sys
import time
from pathlib import Path

import psutil

_MIB = 1 << 20


class Meter:
    """Measures the `with` block; enter it once, after everything that is not to be counted."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = self.growth_mib = 0.0
        self.transferred = 0  # bytes sent by the server, if they are counted

    def __enter__(self) -> Meter:
        # The garbage of the imports is collected at some moment: 80 ms, at random in one contender's measurement.
        gc.collect()
        _reset_peak()
        self._resident = psutil.Process().memory_info().rss
        self._cpu = _cpu_seconds()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start
        self.cpu_seconds = _cpu_seconds() - self._cpu
        self.growth_mib = max(0.0, (_peak() - self._resident) / _MIB)


def _cpu_seconds() -> float:
    """User and system time, also of children (DataLoader workers), which must live from start to end."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    total = own.ru_utime + own.ru_stime
    for child in psutil.Process().children(recursive=True):
        times = child.cpu_times()
        total += times.user + times.system
    return total


def _reset_peak() -> None:
    """Forget the peak of the imports (Linux; elsewhere the peak is that of the whole process)."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def _peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
