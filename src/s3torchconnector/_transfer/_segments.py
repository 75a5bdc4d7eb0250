"""A key range listed in pieces at a time: which pieces there are, and what to ask for next. No I/O.

The range is cut into segments, in key order, each listed from its beginning on. A segment that would take several
more pages is cut in two wherever a guess says its middle is; the last segment, whose end nobody knows, is cut ahead of
what was seen, further each time. Pages of later segments wait until the earlier ones are complete: keys come out in
order, each once.

Only a segment's first page is asked for by a key. Those behind it are asked for by S3's token, since a page may have no
keys that tell how far S3 has come: it sends such where it had to pass many deleted ones. A bucket that does not list in
the order of its keys has one segment, and is never cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from s3torchconnector._errors import S3ProtocolError
from s3torchconnector._transfer._key_space import KeySpace
from s3torchconnector._types import ObjectInfos

_WORTH_CUTTING = 6  # pages still to come, by estimate: each cut costs about half a page that is listed twice
_FIRST_JUMP = 2  # pages ahead of what was seen, for the first cut of the last segment
_LATER_JUMPS = 4  # how many times further each later one goes


class Segment:
    """Keys above ``low`` (exclusive), up to ``high`` (inclusive; None: to the end)."""

    def __init__(self, low: str, high: str | None) -> None:
        self.low = low
        self.high = high
        self.token: str | None = None  # what S3 goes on with behind the pages that have come
        self.pages: deque[ObjectInfos] = deque()
        self.asked = False
        self.complete = False
        self.page_width = 0  # how many numbers of the key space its last page spanned


class Ask(NamedTuple):
    """A page to be listed: of which segment, and with which token; or, for its first page, after which key."""

    segment: Segment
    token: str | None
    start_after: str | None

    def check(self, objects: ObjectInfos, token: str | None) -> None:
        """Hold the page that came to what was asked; ``token`` is what S3 goes on with.

        Raises:
            S3ProtocolError: going on from there would repeat keys, or never end.
        """
        if token is not None and token == self.token:
            raise S3ProtocolError("the server goes on with the token that it was asked with: the listing would not end")
        low = self.segment.low
        if objects and low and not low < objects.keys[0] <= objects.keys[-1]:
            raise S3ProtocolError(
                f"{objects.keys[0]!r} to {objects.keys[-1]!r} came where the keys behind {low!r} were asked for: "
                "the server does not know start-after, or does not list in the order of keys"
            )


class Segments:
    """The segments of a listing, and the pages that are ready to be handed out.

    Args:
        prefix: what all keys begin with.
        width: at most so many pages asked for at a time.
        most_waiting: pages that may wait for earlier ones before only those are asked for.
        in_order: whether pages come in key order, so that a key tells where others are.
    """

    def __init__(self, prefix: str, width: int, most_waiting: int, *, in_order: bool = True) -> None:
        self._space = KeySpace(prefix)
        self._segments = [Segment("", None)]
        self._width = width
        self._most_waiting = most_waiting
        self._in_order = in_order
        self._jump = _FIRST_JUMP
        self._useful = 0  # answers that brought keys
        self._wasted = 0  # answers that brought none

    @property
    def exhausted(self) -> bool:
        """Whether every page has been handed out."""
        return not self._segments

    def next_asks(self) -> list[Ask]:
        """The pages to ask for now, the earliest first; cuts segments to find enough of them."""
        asks: list[Ask] = []
        asked = sum(segment.asked for segment in self._segments)
        waiting = sum(len(segment.pages) for segment in self._segments[1:])
        # Short listings are the most, and some keys cannot be guessed: trust grows with what guesses have brought.
        trusted = max(1, min(self._width, 1 + 2 * self._useful - self._wasted))
        while asked + len(asks) < trusted:
            idle = next((segment for segment in self._segments if not segment.asked and not segment.complete), None)
            if idle is not None and idle is not self._segments[0] and waiting + asked >= self._most_waiting:
                break
            if idle is None:
                idle = self._cut() if waiting + asked < self._most_waiting else None
            if idle is None:
                break
            idle.asked = True
            asks.append(Ask(idle, idle.token, None if idle.token else idle.low or None))
        return asks

    def forget_asked(self) -> None:
        """What was asked for will not come: ask for it again."""
        for segment in self._segments:
            segment.asked = False

    def take(self, segment: Segment, objects: ObjectInfos, token: str | None) -> None:
        """A page of a segment has come; ``token`` is what S3 goes on with behind it, None where it has no more keys."""
        segment.asked = False
        if segment.high is not None and objects and objects.keys[-1] >= segment.high:
            objects = objects.up_to(segment.high)
            token = None
        if objects:
            self._useful += 1
            segment.pages.append(objects)
            if self._in_order:  # otherwise it stays as it was made: without a place to cut, or a key to go on from
                first, last = objects.keys[0], objects.keys[-1]
                self._space.learn((first, last))
                segment.page_width = self._space.number(last) - self._space.number(first)
                segment.low = last
        elif token is None:
            self._wasted += 1
        segment.token = token
        segment.complete = token is None

    def ready(self) -> Iterator[ObjectInfos]:
        """The pages that come next, as far as they are here."""
        while self._segments:
            first = self._segments[0]
            while first.pages:
                yield first.pages.popleft()
            if not first.complete:
                return
            del self._segments[0]

    def _cut(self) -> Segment | None:
        """Cut the earliest segment that is worth it in two, and return the later half."""
        for i, segment in enumerate(self._segments):
            if segment.complete or not segment.page_width:
                continue
            low = self._space.number(segment.low)
            if segment.high is None:
                number = low + segment.page_width * self._jump
            else:
                rest = self._space.number(segment.high) - low
                if rest < _WORTH_CUTTING * segment.page_width:
                    continue
                number = low + rest // 2
            middle = self._space.cut(segment.low, number, segment.high)
            if middle is None:
                continue
            later = Segment(middle, segment.high)
            later.page_width = segment.page_width
            if segment.high is None:
                self._jump *= _LATER_JUMPS
            segment.high = middle
            self._segments.insert(i + 1, later)
            return later
        return None
