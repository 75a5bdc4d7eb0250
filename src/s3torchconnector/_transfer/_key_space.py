"""Where to cut a range of keys that nobody has listed yet: guesses by interpolation. Pure.

Keys are read as numbers whose digits are characters, in the order S3 lists them. Which characters there are is learnt
from the keys seen; of digits and letters the whole class is assumed, from the first to the last that was seen. A bad
guess costs a request, never a key.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

_DIGITS = 32  # characters behind the prefix that are looked at
_DECIMALS = "0123456789"


class KeySpace:
    """The keys that begin with ``prefix``, as far as they are known."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._seen: set[str] = set()
        self._alphabet: list[str] = []

    def learn(self, keys: Iterable[str]) -> None:
        """Take note of the characters of some keys."""
        before = len(self._seen)
        for key in keys:
            self._seen.update(key[len(self._prefix) :])
        if len(self._seen) != before:
            self._alphabet = sorted(self._seen | self._between("a", "z") | self._between("A", "Z") | self._decimals())

    def number(self, key: str) -> int:
        """A key's number: greater keys have no smaller numbers."""
        base = len(self._alphabet) + 1
        number = 0
        tail = key[len(self._prefix) : len(self._prefix) + _DIGITS]
        for character in tail:
            number = number * base + bisect_left(self._alphabet, character) + 1
        return int(number * base ** (_DIGITS - len(tail)))

    def key(self, number: int) -> str:
        """The shortest key of this number, or of one a little smaller."""
        base = len(self._alphabet) + 1
        digits = []
        for _ in range(_DIGITS):
            number, digit = divmod(number, base)
            digits.append(digit)
        if number:
            return self._prefix + self._alphabet[-1] * _DIGITS
        tail = digits[::-1]
        end = tail.index(0) if 0 in tail else _DIGITS
        return self._prefix + "".join(self._alphabet[digit - 1] for digit in tail[:end])

    def cut(self, low: str, number: int, high: str | None) -> str | None:
        """A key for ``number`` that lies strictly between ``low`` and ``high``; None where there is none to guess."""
        if not self._alphabet:
            return None
        key = self.key(number)
        return key if low < key and (high is None or key < high) else None

    def _between(self, first: str, last: str) -> set[str]:
        seen = [character for character in self._seen if first <= character <= last]
        return {chr(code) for code in range(ord(min(seen)), ord(max(seen)) + 1)} if seen else set()

    def _decimals(self) -> set[str]:
        return set(_DECIMALS) if self._seen & set(_DECIMALS) else set()
