"""A key range listed in pieces at a time: which pieces there are, and what to ask for next. No I/O.

The range is cut into segments, in key order, each listed from its beginning on. A segment that would take several
more pages is cut in two wherever a guess says its middle is (``Cuts``). Pages of later segments wait until the earlier
ones are complete: keys come out in order, each once.

Only a segment's first page is asked for by a key. Those after it are asked for by S3's token, since a page may have no
keys that tell how far S3 has come: it sends such where it had to pass many deleted ones.

All this relies on the order of keys, and not every server has S3's (UTF-16 instead of UTF-8 sorts some keys
differently). So the order is proved, not believed, by two comparisons. Each page's keys ascend. And each segment is
listed until a key after its end is seen: that key must be the first one that a later segment brings. Then what is
handed out is one page after the other as the server has them, whatever its order. Where either does not hold, what the
later segments brought is dropped, and the listing goes on from the last key handed out by the server's token: in one
segment that is never cut, as a bucket is listed that has no order at all. A key that is written or deleted at such a
place meanwhile looks the same; so the first time, segments are cut again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from s3torchconnector._transfer.listing._cuts import Cuts, Survey
from s3torchconnector._types import ObjectInfos
from s3torchconnector._wire import Continuation, ListPage

_MISMATCHES = 1  # between segments, before keys are taken to be out of order: they may have been written meanwhile


class Place(NamedTuple):
    """Where a page begins: with a token or, where there is none, after a key; after neither, at the beginning."""

    token: str | None
    start_after: str | None


class Seam(NamedTuple):
    """The end of a segment: its last page, how much of that was handed out, and the key that must come next.

    Attributes:
        place: where the page begins.
        until: the last key handed out, or one after it that is not there.
        following: the key after it in that page; None at the end of the listing.
    """

    place: Place
    until: str
    following: str | None


class Segment:
    """Keys above ``low`` (exclusive), up to ``high`` (inclusive; None: to the end)."""

    def __init__(self, low: str, high: str | None, place: Place | None = None, skip: str | None = None) -> None:
        self.survey = Survey(low, high)
        self.place = place or Place(None, low or None)  # of its next page
        self.skip = skip  # keys at the beginning of that page which are not after this one were handed out already
        self.continuation = Continuation()
        self.pages: deque[ObjectInfos] = deque()
        self.asked = False
        self.seam: Seam | None = None  # once it is complete

    @property
    def low(self) -> str:
        """The last key that has come or, before that, one that all keys are greater than."""
        return self.survey.low

    @property
    def high(self) -> str | None:
        """The last key there can be, if not all to the end."""
        return self.survey.high


class PageRequest(NamedTuple):
    """A page to be listed, and of which segment."""

    segment: Segment
    token: str | None
    start_after: str | None

    def check(self, token: str | None) -> None:
        """Hold the page that came to what was asked; ``token`` is what S3 goes on with.

        Raises:
            S3ProtocolError: the listing would never end.
        """
        self.segment.continuation.check(token)


class Segments:
    """The segments of a listing, and the pages that are ready to be handed out.

    Args:
        prefix: what all keys begin with.
        width: at most so many pages asked for at a time.
        most_waiting: pages that may wait for earlier ones before only those are asked for.
        in_order: whether pages may come in key order, so that a key tells where others are.

    Attributes:
        disordered: whether a page came whose keys are not in order.
    """

    def __init__(self, prefix: str, width: int, most_waiting: int, *, in_order: bool = True) -> None:
        self._cuts = Cuts(prefix)
        self._segments = [Segment("", None)]
        self._width = width
        self._most_waiting = most_waiting
        self._in_order = in_order
        self.disordered = False
        self._mismatches = 0
        self._seam: Seam | None = None  # between what was handed out and what comes next, until that has come
        self._is_stale = False
        self._useful = 0  # answers that brought keys
        self._wasted = 0  # answers that brought none

    @property
    def exhausted(self) -> bool:
        """Whether every page has been handed out."""
        return not self._segments

    def has_restarted(self) -> bool:
        """Whether what was asked for is no longer wanted; says so once."""
        is_stale, self._is_stale = self._is_stale, False
        return is_stale

    def next_asks(self) -> list[PageRequest]:
        """The pages to ask for now, the earliest first; cuts segments to find enough of them."""
        asks: list[PageRequest] = []
        asked = sum(segment.asked for segment in self._segments)
        waiting = sum(len(segment.pages) for segment in self._segments[1:])
        # Short listings are the most, and some keys cannot be guessed: trust grows with what guesses have brought.
        trusted = max(1, min(self._width, 1 + 2 * self._useful - self._wasted))
        while asked + len(asks) < trusted:
            idle = next((segment for segment in self._segments if not segment.asked and not segment.seam), None)
            if idle is not None and idle is not self._segments[0] and waiting + asked >= self._most_waiting:
                break
            if idle is None:
                idle = self._cut() if waiting + asked < self._most_waiting else None
            if idle is None:
                break
            idle.asked = True
            asks.append(PageRequest(idle, *idle.place))
        return asks

    def forget_asked(self) -> None:
        """What was asked for will not come: ask for it again."""
        for segment in self._segments:
            segment.asked = False

    def take(self, ask: PageRequest, page: ListPage) -> None:
        """A page has come."""
        segment = ask.segment
        segment.asked = False
        page = page if segment.high is None else page.until(segment.high)
        objects = page.objects
        begins_later = segment.skip is not None or not objects or segment.low < objects.keys[0]
        if self._in_order and not (page.in_order and begins_later):
            self.disordered, self._in_order = True, False
            self._restart()
            return
        if segment.skip is not None:
            handed_out = next((i for i, key in enumerate(objects.keys) if key > segment.skip), len(objects))
            objects, segment.skip = objects[handed_out:], None
        if objects:
            self._useful += 1
            segment.pages.append(objects)
        elif page.next_token is None or page.following is not None:
            self._wasted += 1
        if self._in_order:  # otherwise it stays as it was made: without a place to cut
            surveys = [each.survey for each in self._segments]
            number = self._segments.index(segment)
            is_cut_off, is_last = page.following is not None, page.next_token is None
            self._cuts.learn(surveys, number, objects.keys, is_cut_off=is_cut_off, is_last=is_last)
        if page.following is not None or page.next_token is None:
            until = objects.keys[-1] if objects else segment.low
            if page.following is not None and segment.high is not None:
                until = segment.high
            segment.seam = Seam(Place(ask.token, ask.start_after), until, page.following)
        else:
            segment.continuation.advance(page.next_token)
            segment.place = Place(page.next_token, None)

    def ready(self) -> Iterator[ObjectInfos]:
        """The pages that come next, as far as they are here."""
        while self._segments:
            first = self._segments[0]
            while first.pages:
                if self._seam is not None and self._seam.following != first.pages[0].keys[0]:
                    self._mismatch()
                    return
                self._seam = None
                yield first.pages.popleft()
            if first.seam is None:
                return
            self._seam = self._seam or first.seam  # of a segment without keys, the one before it counts
            del self._segments[0]
        if self._seam is not None and self._seam.following is not None:
            self._mismatch()

    def _mismatch(self) -> None:
        """What came after a segment is not what its last page said."""
        self._mismatches += 1
        if self._mismatches > _MISMATCHES:
            self._in_order = False
        self._restart()

    def _restart(self) -> None:
        """Drop what came after the last key handed out, and go on from there in one segment."""
        if self._seam is not None:
            segment = Segment(self._seam.until, None, self._seam.place, self._seam.until)
        else:
            segment = self._segments[0]
            segment.survey.high, segment.asked = None, False
        self._segments, self._seam = [segment], None
        self._is_stale = True

    def _cut(self) -> Segment | None:
        """Cut the earliest segment that is worth it in two, and return the later half."""
        if not self._in_order:
            return None
        found = self._cuts.find([None if each.seam else each.survey for each in self._segments])
        if found is None:
            return None
        segment = self._segments[found.number]
        later = Segment(found.key, segment.high)
        segment.survey.high, segment.survey.guess = found.key, later.survey
        self._cuts.locate(segment.survey, later.survey)
        self._segments.insert(found.number + 1, later)
        return later
