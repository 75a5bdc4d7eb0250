"""A listing in several segments at a time: which there are, and which pages to request next. No I/O.

The range of keys is split into segments, in key order, and each is listed from its beginning on. A segment that seems
to have several more pages is split in its middle, which is a guess (``SplitPlanner``). Pages of later segments wait
until the earlier ones are complete: keys are returned in order, each once.

Example, of the keys 000 to 999 in pages of 100:

    requested at a time                   what comes          segments after that
    the first page                        000-099             -1, 1-         (split after "1", a guess)
    after 099 (by token), after "1"       nothing, 100-199    1-59, 59-      (split after "59")
    after 199 (by token), after "59"      200-299, 590-689    1-59, 59-9, 9-

Only the first page of a segment is requested by a key (``start-after``). The later pages are requested by S3's token:
S3 sends pages without keys if it had to skip many deleted ones, and these pages do not show how far the listing has
come.

All this relies on the order of keys, and not every server has S3's (UTF-16 sorts some keys unlike UTF-8). So two
comparisons prove the order. The keys of each page ascend. And each segment is listed until a key after its end is seen,
which must be the first key of the next segment (``Boundary``). If both are true, the returned pages are the consecutive
pages of the server, in its own order. If one is not, the pages of later segments are discarded, and the listing
continues by the server's token from the last key returned, in one segment that is never split. A key that is written or
deleted at a boundary in the meantime looks the same: so the first time, segments are split again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from s3torchconnector._listing_results import ObjectInfos
from s3torchconnector._transfer.listing._split_points import SegmentEstimate, SplitPlanner
from s3torchconnector._wire import Continuation, ListPage

_MISMATCHES = 1  # at boundaries, before keys are taken to be out of order: some may have been written in the meantime


class PageStart(NamedTuple):
    """Where a page begins: at a token, or after a key, or with neither at the beginning."""

    token: str | None
    start_after: str | None


class Boundary(NamedTuple):
    """The end of a segment that is complete, in its last page, and what must come after it.

    Attributes:
        page: where the page begins.
        keys: those of the page that belong to the segment.
        until: the last key of the segment, or a later one that does not exist.
        following: the key after that in the page, which must come next; None at the end of the listing.
    """

    page: PageStart
    keys: frozenset[str]
    until: str
    following: str | None


class Segment:
    """Keys above ``low`` (exclusive), up to ``high`` (inclusive; None: to the end).

    Args:
        low, high: see above.
        returned: the boundary after which it continues, if its first page is one that was requested before.
    """

    def __init__(self, low: str, high: str | None, returned: Boundary | None = None) -> None:
        self.estimate = SegmentEstimate(low, high)
        self.next_page = returned.page if returned else PageStart(None, low or None)
        self.returned = returned  # until a key has come that is after it
        self.last_seen = "" if returned else low  # the last key that has come, if it was returned before, too
        self.continuation = Continuation()
        self.pages: deque[ObjectInfos] = deque()  # that have come and not been returned
        self.requested = False
        self.boundary: Boundary | None = None  # its end, when it is complete

    @property
    def low(self) -> str:
        """The last key that has come; before that, a key that is smaller than all of them."""
        return self.estimate.low

    @property
    def high(self) -> str | None:
        """The last possible key; None if it is unknown."""
        return self.estimate.high


class PageRequest(NamedTuple):
    """A page to be requested, and the segment that it is for."""

    segment: Segment
    token: str | None
    start_after: str | None

    def check(self, token: str | None) -> None:
        """Compare the page that came with earlier ones; ``token`` is S3's for the page after it.

        Raises:
            S3ProtocolError: the listing would never end.
        """
        self.segment.continuation.check(token)


class Segments:
    """The segments of a listing, and the pages that have come.

    Args:
        prefix: what all keys begin with.
        width: the most pages requested at a time.
        most_waiting: if so many pages wait for earlier ones, only the earliest is requested.
        in_order: whether keys may come in order; if not, there is one segment that is never split.
        after: the key after which the listing begins.

    Attributes:
        disordered: whether a page has come whose keys are not in order.
    """

    def __init__(self, prefix: str, width: int, most_waiting: int, *, in_order: bool = True, after: str = "") -> None:
        self._planner = SplitPlanner(prefix)
        self._segments = [Segment(after, None)]
        self._width = width
        self._most_waiting = most_waiting
        self._in_order = in_order
        self.disordered = False
        self._mismatches = 0
        self._boundary: Boundary | None = None  # after the last page returned, until the next one is known to fit
        self._is_stale = False
        self._full_responses = 0  # that brought keys
        self._empty_responses = 0  # that brought none

    @property
    def exhausted(self) -> bool:
        """Whether every page has been returned."""
        return not self._segments

    def has_restarted(self) -> bool:
        """Whether the pages requested so far are no longer wanted; says so once."""
        is_stale, self._is_stale = self._is_stale, False
        return is_stale

    def next_requests(self) -> list[PageRequest]:
        """The pages to request now, the earliest first. Splits segments to find enough of them."""
        requests: list[PageRequest] = []
        requested = sum(segment.requested for segment in self._segments)
        waiting = sum(len(segment.pages) for segment in self._segments[1:])
        # Most listings are short, and some keys cannot be guessed: trust grows with what guesses have brought.
        trusted = max(1, min(self._width, 1 + 2 * self._full_responses - self._empty_responses))
        while requested + len(requests) < trusted:
            idle = next((segment for segment in self._segments if not segment.requested and not segment.boundary), None)
            if idle is not None and idle is not self._segments[0] and waiting + requested >= self._most_waiting:
                break
            if idle is None:
                idle = self._split() if waiting + requested < self._most_waiting else None
            if idle is None:
                break
            idle.requested = True
            requests.append(PageRequest(idle, *idle.next_page))
        return requests

    def forget_requests(self) -> None:
        """The pages requested so far will not come: request them again."""
        for segment in self._segments:
            segment.requested = False

    def add_page(self, request: PageRequest, page: ListPage) -> None:
        """A page has come."""
        segment = request.segment
        segment.requested = False
        page = page if segment.high is None else page.until(segment.high)
        objects = page.objects
        begins_later = not objects or segment.last_seen < objects.keys[0]
        if self._in_order and not (page.in_order and begins_later):
            self.disordered, self._in_order = True, False
            self._restart()
            return
        if objects:
            segment.last_seen = objects.keys[-1]
        if segment.returned is not None:
            objects = self._not_returned(segment, segment.returned, objects)
        if objects:
            self._full_responses += 1
            segment.pages.append(objects)
        elif page.next_token is None or page.following is not None:
            self._empty_responses += 1
        if self._in_order:  # otherwise nothing is split
            estimates = [each.estimate for each in self._segments]
            number = self._segments.index(segment)
            is_cut_off, is_last = page.following is not None, page.next_token is None
            self._planner.learn(estimates, number, objects.keys, is_cut_off=is_cut_off, is_last=is_last)
        if page.following is not None or page.next_token is None:
            until = objects.keys[-1] if objects else segment.low
            if page.following is not None and segment.high is not None:
                until = segment.high
            start = PageStart(request.token, request.start_after)
            segment.boundary = Boundary(start, frozenset(page.objects.keys), until, page.following)
        else:
            segment.continuation.advance(page.next_token)
            segment.next_page = PageStart(page.next_token, None)

    def _not_returned(self, segment: Segment, returned: Boundary, objects: ObjectInfos) -> ObjectInfos:
        """What was not returned of a page that was requested before, or of one after it: pages may be shorter then."""
        if not self._in_order:
            last = max((i for i, key in enumerate(objects.keys) if key in returned.keys), default=-1)
            return objects[last + 1 :]
        objects = objects[bisect_right(objects.keys, returned.until) :]
        if objects:
            segment.returned = None
        return objects

    def ready(self) -> Iterator[ObjectInfos]:
        """The next pages of the listing, as far as they have come."""
        while self._segments:
            first = self._segments[0]
            while first.pages:
                if self._boundary is not None and self._boundary.following != first.pages[0].keys[0]:
                    self._mismatch()
                    return
                self._boundary = None
                yield first.pages.popleft()
            if first.boundary is None:
                return
            self._boundary = self._boundary or first.boundary  # after a segment without keys, the one before it counts
            del self._segments[0]
        if self._boundary is not None and self._boundary.following is not None:
            self._mismatch()

    def _mismatch(self) -> None:
        """What came after a segment is not what its last page says."""
        self._mismatches += 1
        if self._mismatches > _MISMATCHES:
            self._in_order = False
        self._restart()

    def _restart(self) -> None:
        """Discard what came after the last key returned, and continue from there in one segment."""
        if self._boundary is not None:
            segment = Segment(self._boundary.until, None, self._boundary)
        else:
            segment = self._segments[0]
            segment.estimate.high, segment.requested = None, False
        self._segments, self._boundary = [segment], None
        self._is_stale = True

    def _split(self) -> Segment | None:
        """Split the earliest segment that is worth it, and return the later half."""
        if not self._in_order:
            return None
        found = self._planner.next_split([None if each.boundary else each.estimate for each in self._segments])
        if found is None:
            return None
        segment = self._segments[found.number]
        later = Segment(found.key, segment.high)
        segment.estimate.high, segment.estimate.later = found.key, later.estimate
        self._planner.update_coordinates(segment.estimate, later.estimate)
        self._segments.insert(found.number + 1, later)
        return later
