"""Coordinates of keys, known and unknown, to guess the middle of a range that has not been listed. Pure.

A key has a coordinate between 0 and 1. The first character after what all known keys begin with chooses an interval,
the next one an interval inside of that, and so on, in the order in which S3 lists keys. Coordinates are interpolated,
and turned back into keys. A bad guess costs a request, never a key.

Example: keys of two digits are known, and all ten digits are equally wide at both positions. Then "37" has the
coordinate 0.37, and halfway between that and the end, at 0.685, is "68".

Which characters there are is learnt from some keys of each page, and for each position by itself: for the second
character after the third slash, say. Digits and letters that no key has had so far are expected as well, with narrower
intervals, until pages show that keys go past them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

_LONGEST = 256  # only so many characters of a key count
_SAMPLES = 12  # keys of each page to learn from
_MANY_PAGES = 100  # after so many pages, two keys of each are enough
_UNSEEN = 0.5  # the width of a digit that no key has had, if that of a character that keys have is 1
_UNSEEN_LETTERS = 1.0  # the width of all letters together that no key has had
_NARROWEST = 1e-15  # narrower intervals cannot be distinguished
_GROWTH = 1.25  # coordinates are computed again when so many times as many pages are known
_LAST = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)  # codes that are no characters
_ASCII = range(0x21, 0x7F)
_DECIMALS = frozenset("0123456789")
_CLASSES = (("0", "9"), ("a", "z"), ("A", "Z"))


class _Position:
    """The characters that keys have at one position, and the interval of each between 0 and 1."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._absent: set[str] = set()  # characters that lie between those of some page
        self._wraps = 0  # pages after which all characters that keys have are taken to be seen
        self._all: list[str] = []
        self._begins: list[float] = []
        self._intervals: dict[str, tuple[float, float]] = {}

    def learn(self, characters: set[str], *, wrapped: bool) -> None:
        """Learn the characters of a page's keys.

        Args:
            characters: what the keys have at this position.
            wrapped: whether they also differ at an earlier position. Then this one has gone from its last character
                to its first, as the digits of a counter do, and all of its characters are likely to be among these.
        """
        self.seen |= characters
        self._wraps += wrapped
        if not wrapped and len(characters) > 1:
            self.mark_absent(ord(min(characters)) + 1, ord(max(characters)))

    def mark_absent(self, first: int, stop: int) -> None:
        """No key was found with a character of these codes, from ``first`` up to ``stop``; seen ones stay seen."""
        self._absent.update(map(chr, range(max(first, _ASCII.start), min(stop, _ASCII.stop))))

    @property
    def has_digits(self) -> bool:
        """Whether keys have digits here."""
        return not self.seen.isdisjoint(_DECIMALS)

    @property
    def is_mixed(self) -> bool:
        """Whether they have letters here as well."""
        return self.has_digits and any(character.isalpha() for character in self.seen)

    def build(self, alphabet: set[str]) -> None:
        """Give each character its interval; ``alphabet`` has the digits and letters of similar positions."""
        widths = dict.fromkeys(self.seen, 1.0)
        if any(character.isalnum() for character in self.seen):
            has_digits = self.has_digits
            for first, last in _CLASSES:
                known = [character for character in alphabet | self.seen if first <= character <= last]
                if not (known and (has_digits or any(first <= character <= last for character in self.seen))):
                    continue
                low, high = ("0", "9") if first == "0" else (min(known), max(known))
                unseen = {chr(code) for code in range(ord(low), ord(high) + 1)} - self.seen
                width = _UNSEEN if has_digits else min(_UNSEEN, _UNSEEN_LETTERS / max(1, len(unseen)))
                widths.update(dict.fromkeys(unseen, width / (1 + self._wraps)))
                widths.update(dict.fromkeys(unseen & self._absent, width / (20 + self._wraps)))
        total, begin = sum(widths.values()), 0.0
        self._all, self._begins = sorted(widths), []
        for character in self._all:
            width = widths[character] / total
            self._begins.append(begin)
            self._intervals[character] = begin, width
            begin += width

    def interval(self, character: str) -> tuple[float, float]:
        """Where a character's interval begins, and how wide it is."""
        found = self._intervals.get(character)
        if found is None:
            i = bisect_left(self._all, character)
            found = (self._begins[i] if i < len(self._begins) else 1.0), 0.0
        return found

    def at(self, coordinate: float) -> str:
        """The character whose interval has this coordinate; empty if no characters are known."""
        return self._all[max(0, bisect_right(self._begins, coordinate) - 1)] if self._all else ""


def common_beginning(first: str, second: str) -> str:
    """The characters that both begin with."""
    if second.startswith(first):
        return first
    return first[: next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), len(second))]


def after(prefix: str) -> str:
    """A key after all those that begin with a prefix."""
    return prefix[:-1] + _character(ord(prefix[-1]) + 1)


def _character(code: int) -> str:
    return chr(min(_SURROGATES[-1] + 1 if code in _SURROGATES else code, _LAST))


class KeySpace:
    """The keys that begin with ``prefix``, as far as they are known.

    Attributes:
        common: what all known keys begin with.
        version: grows whenever coordinates change.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.common = prefix
        self._origin = 0, 0  # the position after ``common``
        self._positions: list[list[_Position]] = []  # by the number of slashes before, and of characters since then
        self._pages = 0
        self._built = 0.0
        self.version = 0

    def learn(self, keys: Sequence[str], before: str = "") -> None:
        """Learn from a page's keys; there are none between ``before`` and the first of them."""
        alike = common_beginning(keys[0], keys[-1])
        few = keys[:: max(1, len(keys) // (_SAMPLES if self._pages < _MANY_PAGES else 2))]
        seen: dict[tuple[int, int], set[str]] = {}
        wrapped: set[tuple[int, int]] = set()
        for key in [*few, keys[-1]]:
            depth = offset = 0
            # What all of them begin with is learnt from the first one alone.
            start = len(self._prefix) if key is keys[0] else len(alike)
            if start > len(self._prefix):
                depth, offset = self._position_after(alike)
            for i, character in enumerate(key[start : len(alike) + _LONGEST], start):
                seen.setdefault((depth, offset), set()).add(character)
                if i > len(alike):
                    wrapped.add((depth, offset))
                depth, offset = (depth + 1, 0) if character == "/" else (depth, offset + 1)
        for (depth, offset), characters in sorted(seen.items()):
            while len(self._positions) <= depth:
                self._positions.append([])
            while len(self._positions[depth]) <= offset:
                self._positions[depth].append(_Position())
            self._positions[depth][offset].learn(characters, wrapped=(depth, offset) in wrapped)
        if before and self._pages:
            self._learn_gap(before, keys[0])
        self._pages += 1
        common = common_beginning(self.common, alike) if self._pages > 1 else alike
        if common != self.common or self._pages >= self._built * _GROWTH:
            self.common, self._origin = common, self._position_after(common)
            self._build()

    def _learn_gap(self, before: str, first: str) -> None:
        """Learn that there are no keys between these two."""
        alike = common_beginning(before, first)
        if len(alike) < len(self._prefix):
            return
        depth, offset = self._position_after(alike)
        edges = before[len(alike) : len(alike) + 2], first[len(alike) : len(alike) + 2]
        position = self._position(depth, offset)
        if position is not None and edges[0] and edges[1]:
            position.mark_absent(ord(edges[0][0]) + 1, ord(edges[1][0]))
        for edge in edges:
            following = self._position(depth + 1, 0) if edge[:1] == "/" else self._position(depth, offset + 1)
            if following is not None and len(edge) > 1:
                after_low = edge is edges[0]
                following.mark_absent(ord(edge[1]) + 1 if after_low else 0, _LAST if after_low else ord(edge[1]))

    def _position_after(self, beginning: str) -> tuple[int, int]:
        """The position after ``beginning``: how many slashes come after the prefix, and how many characters since."""
        tail = beginning[len(self._prefix) :]
        return tail.count("/"), len(tail) - tail.rfind("/") - 1

    def _build(self) -> None:
        self._built = self._pages
        self.version += 1
        for level in self._positions:
            alphabet = {character for position in level for character in position.seen if character.isalnum()}
            mixed = set().union(*(position.seen for position in level if position.is_mixed))
            for position in level:
                position.build(alphabet if not position.has_digits else alphabet & (mixed | _DECIMALS))

    def coordinate(self, key: str) -> float:
        """The coordinate of a key. A greater key has no smaller one, except for rounding."""
        common = self.common
        if not key.startswith(common):
            return 0.0 if key < common else 1.0
        begin, width = 0.0, 1.0
        depth, offset = self._origin
        for character in key[len(common) :]:
            position = self._position(depth, offset)
            if position is None or width < _NARROWEST:
                break
            start, share = position.interval(character)
            begin += width * start
            width *= share
            depth, offset = (depth + 1, 0) if character == "/" else (depth, offset + 1)
        return begin

    def key_at(self, coordinate: float, precision: float) -> str:
        """A short key with this coordinate, or one that is less than ``precision`` smaller."""
        begin, width = 0.0, 1.0
        depth, offset = self._origin
        found = [self.common]
        while width > precision and (position := self._position(depth, offset)):
            character = position.at((coordinate - begin) / width)
            start, share = position.interval(character)
            begin += width * start
            width *= share
            found.append(character)
            depth, offset = (depth + 1, 0) if character == "/" else (depth, offset + 1)
        return "".join(found)

    def beyond(self) -> str:
        """A key after all known ones: after their common beginning or, without one, twice as far as they reach."""
        common = self.common
        if len(common) > len(self._prefix):
            return after(common)
        position = self._position(0, 0)
        seen = position.seen if position else {"0"}
        first, last = ord(min(seen)), ord(max(seen))
        code = 2 * last - first + 1
        for _, end in _CLASSES:
            if last < ord(end) < code:
                code = ord(end)
        return common + _character(code)

    def _position(self, depth: int, offset: int) -> _Position | None:
        if depth < len(self._positions) and offset < len(self._positions[depth]):
            return self._positions[depth][offset]
        return None
