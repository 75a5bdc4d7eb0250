"""How much a cache stores on a slow disk. Pure."""

from __future__ import annotations


class Pace:
    """Whether to store more on a disk that is slow.

    The kernel makes a writer wait if the disk is slower than all writers together. Training must not be as slow: such
    waits may take ``SHARE`` of the time, and ``BURST`` seconds at once.
    """

    SHARE = 0.1
    BURST = 1.0
    _USUAL = 0.001  # seconds that storing takes, if it does not wait
    _PER_BYTE = 1 / 100e6

    def __init__(self) -> None:
        self._waited = self._at = 0.0

    def allows(self, now: float) -> bool:
        """Whether to store something now, in seconds of any clock."""
        self._waited = max(0.0, self._waited - self.SHARE * (now - self._at))
        self._at = now
        return self._waited < self.BURST

    def note(self, seconds: float, size: int) -> None:
        """Storing so many bytes has taken so long."""
        self._waited += max(0.0, seconds - self._USUAL - size * self._PER_BYTE)
