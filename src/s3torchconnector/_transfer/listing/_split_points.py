"""Which segment of a listing to split next, and after which key. Pure.

A segment is split in the middle of the keys that it probably still has, if those fill several pages. Keys have
coordinates between 0 and 1 (``KeySpace``), and two widths of a page tell how many pages a range of them holds:

- The usual one, of the pages of this segment and of all others.
- That of the segment's last page alone, for a directory in which keys are many. It says nothing about other
  directories, so it only splits keys that begin like the keys of the page.

Example: of the keys 000 to 999, in pages of 100, the first two have come. All keys so far begin with 0 or 1, other
digits are expected, and a page is about 0.16 wide. So the rest, from 0.33 to 1, has four pages or more, and is split in
the middle, after "59". If too little is known for that, the last segment is split after all known keys: when only 000
to 099 have come, after "1".

A split costs about half a page that is listed twice, and a whole request if there are no keys. So splits are made
freely until a fifth of all pages were wasted, then only if many pages are left, and then not at all. If the splits of a
segment found no keys, the segment must return keys before it is split again, more of them each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from s3torchconnector._transfer.listing._key_space import KeySpace, after, common_beginning

_FREELY = 3.0  # pages that a segment must still have, by estimate, to be worth a split
_CAREFULLY = 8.0  # the same, after several wasted pages
_SPARE = 1.0, 0.2  # wasted pages until splits are made carefully: a number, and a share of the pages that count
_LIMIT = 1.0, 0.25  # the same, until none is made
_PRECISION = 8  # a split point is as exact as this part of a page


class SegmentEstimate:
    """The known keys of one segment.

    Attributes:
        low: the last key that has come; before that, a key that is smaller than all of them.
        high: the last key that there can be; None if nobody knows.
        full_pages: how many full pages the keys that have come would fill.
        later: the segment that was split off its end, if it was split.
        has_page: whether a page has come.
        coordinates: of its first key, of ``low``, and of ``high``; see ``KeySpace``.
    """

    def __init__(self, low: str, high: str | None) -> None:
        self.low = low
        self.high = high
        self.full_pages = 0.0
        self.later: SegmentEstimate | None = None
        self.has_page = False
        self.coordinates = (0.0, 0.0, 0.0)
        self._first = self._first_of_page = low  # the first key of all, and of the last page
        self._common = ""  # what all keys of its last page begin with
        self._page_width = 0.0  # of its last page, in the key space
        self._empty_splits = 0  # splits after which there were no keys
        self._empty_width = 0.0  # of the key space that they found empty
        self._split_after = 0.0  # full pages that must have come before it is split again
        self._last_try: object = None

    def add_page(self, keys: Sequence[str], share: float) -> None:
        """These keys have come; they fill this share of a page."""
        self._first = self._first or keys[0]
        self._first_of_page, self.low = keys[0], keys[-1]
        self._common = common_beginning(keys[0], keys[-1])
        self.full_pages += share

    def note_empty_split(self, width: float) -> None:
        """There are no keys after the key that it was split at, up to where it ended: so much of the key space."""
        self._empty_width += width
        self._empty_splits += 1
        self._split_after = self.full_pages + 2.0**self._empty_splits - 1.5

    def update_coordinates(self, space: KeySpace) -> None:
        """Its keys have changed, or the coordinates of all keys have."""
        end = 1.0 if self.high is None else space.coordinate(self.high)
        self.coordinates = space.coordinate(self._first), space.coordinate(self.low), end
        self._page_width = self.coordinates[1] - space.coordinate(self._first_of_page)

    def split_key(self, space: KeySpace, usual: float, worth: float) -> str | None:
        """The key to split it at, if it probably has more than ``worth`` pages still.

        Args:
            space: the coordinates of keys.
            usual: the width of a page of any segment.
            worth: pages.
        """
        waits = self._empty_splits > 0 and self.later is not None and not self.later.has_page
        state = space.version, self.low, self.high, worth, waits
        if state == self._last_try or not self.low:
            return None
        self._last_try = state
        first, low, end = self.coordinates
        width = (low - first + self._empty_width + usual) / (self.full_pages + 1.0)
        if end - low > worth * width > 0.0:
            key: str | None = space.key_at((low + end) / 2, width / _PRECISION)
        else:
            may_split = self.full_pages and not waits and self.full_pages >= self._split_after
            key = self._split_key_nearby(space, worth) if may_split else None
            if key is None and self.high is None and self.full_pages:
                key = space.beyond()
        return key if key is not None and self.low < key and (self.high is None or key < self.high) else None

    def _split_key_nearby(self, space: KeySpace, worth: float) -> str | None:
        """A key to split it at among those that begin nearly as the keys of its last page do."""
        low, width = self.coordinates[1], self._page_width
        for length in range(len(self._common), len(space.common), -1) if width > 0.0 else ():
            last = after(self._common[:length])
            is_all = self.high is not None and last >= self.high
            end = self.coordinates[2] if is_all else space.coordinate(last)
            if end - low > (worth if is_all else 2 * worth) * width:
                return space.key_at((low + end) / 2, width / _PRECISION)
            if is_all:
                break
        return None


class SplitPoint(NamedTuple):
    """Which segment to split, by its number, and after which key."""

    number: int
    key: str


class SplitPlanner:
    """Where to split the segments of one listing, all of whose keys begin with ``prefix``."""

    def __init__(self, prefix: str) -> None:
        self._space = KeySpace(prefix)
        self._version = 0  # of the key space, when all coordinates were computed last
        self._page_size = 1  # keys of the largest page
        self._pages = 0  # that have come
        self._full_pages = 0.0  # that would have been enough for their keys

    def learn(
        self, estimates: Sequence[SegmentEstimate], number: int, keys: Sequence[str], *, is_cut_off: bool, is_last: bool
    ) -> None:
        """A page has come.

        Args:
            estimates: of all segments, in key order.
            number: which of them the page was requested for.
            keys: those of the page that belong to the segment.
            is_cut_off: whether the page has more keys, after the end of the segment.
            is_last: whether the server has no page after it.
        """
        estimate = estimates[number]
        estimate.has_page = True
        self._pages += 1
        self._page_size = max(self._page_size, len(keys))
        share = 1.0  # however few keys the server put into it
        if is_cut_off or (is_last and not keys):
            share = len(keys) / self._page_size
        self._full_pages += share
        if keys:
            self._space.learn(keys, before=estimate.low)
            estimate.add_page(keys, share)
        stale = estimates if self._version != self._space.version else (estimate,)
        self._version = self._space.version
        for each in stale:
            each.update_coordinates(self._space)
        if not keys and is_cut_off and number:
            estimates[number - 1].note_empty_split(estimate.coordinates[2] - estimate.coordinates[1])

    def update_coordinates(self, *estimates: SegmentEstimate) -> None:
        """These segments are new, or end elsewhere."""
        for estimate in estimates:
            estimate.update_coordinates(self._space)

    def next_split(self, estimates: Sequence[SegmentEstimate | None]) -> SplitPoint | None:
        """The first split that is worth it.

        Args:
            estimates: of all segments, in key order; None for those that are complete.
        """
        incomplete = [estimate for estimate in estimates if estimate is not None]
        worth = self._pages_worth_a_split(sum(not estimate.has_page for estimate in incomplete))
        pages = sum(estimate.full_pages for estimate in incomplete)
        width = sum(estimate.coordinates[1] - estimate.coordinates[0] for estimate in incomplete)
        usual = width / pages if pages else 0.0
        for number, estimate in enumerate(estimates):
            key = estimate.split_key(self._space, usual, worth) if estimate is not None else None
            if key is not None:
                return SplitPoint(number, key)
        return None

    def _pages_worth_a_split(self, guesses: int) -> float:
        """How many pages a segment must still have to be split, while no page has come of so many segments."""
        vain = self._pages - self._full_pages
        # Of each guess, half a page is listed twice, and as many guesses find nothing as before.
        vain += guesses * max(0.5, (vain + 1.0) / (self._pages + 2.0))
        if vain < _SPARE[0] + _SPARE[1] * self._full_pages:
            return _FREELY
        return _CAREFULLY if vain < _LIMIT[0] + _LIMIT[1] * self._full_pages else float("inf")
