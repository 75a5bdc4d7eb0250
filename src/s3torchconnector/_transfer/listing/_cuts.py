"""Which segment of a listing to cut next, and at which key: by how many pages it probably still has. Pure.

Two widths of a page tell that. The usual one, of the segment's pages and all others' (``KeySpace`` says how far keys
are from each other), and that of its last page alone, where keys that begin alike are many: one directory of a
thousand. By the latter, only those keys are cut that begin nearly as the last page's do, since it says nothing of
others. The last segment, whose end nobody knows, is cut after all keys known so far.

A cut costs about half a page that is listed twice, and a whole request where it turns out that no key is there. So
cuts are made freely until a fifth of all pages came in vain, and then only where much is still to come, or not at all.
Where a segment's cuts found nothing it has to bring keys before it is cut again, more of them each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from s3torchconnector._transfer.listing._key_space import KeySpace, after, common_beginning

_FREELY = 3.0  # pages still to come, by estimate, that make a cut worth it
_CAREFULLY = 8.0
_SPARE = 1.5, 0.2  # pages that may come in vain before cuts are made carefully: some, and a share of all that count
_LIMIT = 2.5, 0.25  # and before none is made
_PRECISION = 8  # of cuts, in parts of a page


class Survey:
    """What is known of the keys of one segment.

    Attributes:
        low: the last key that has come; before that, one that is smaller than all of them.
        high: the last key there can be; None if nobody knows.
        whole: pages that have come, as far as their keys are of the segment.
        guess: the segment after it, if it was cut.
    """

    def __init__(self, low: str, high: str | None) -> None:
        self.low = low
        self.high = high
        self.whole = 0.0
        self.guess: Survey | None = None
        self.answered = False
        self._begin = self._first = low  # of all its keys, and of its last page's
        self._alike = ""  # what its last page's keys begin with
        self._empty = 0.0  # how much of the key space turned out to have no keys that was thought to be its
        self._misses = 0
        self._enough = 0.0  # pages that must have come before it is cut again
        self._tried: object = None
        self.places = (0.0, 0.0, 0.0)  # of where it begins, how far it has come, and where it ends
        self._page = 0.0  # how much of the key space its last page has

    def take(self, keys: Sequence[str], share: float) -> None:
        """A page's keys have come, this share of a whole one."""
        self._begin = self._begin or keys[0]
        self._first, self.low = keys[0], keys[-1]
        self._alike = common_beginning(keys[0], keys[-1])
        self.whole += share

    def miss(self, empty: float) -> None:
        """No keys are where it was cut, nor after that."""
        self._empty += empty
        self._misses += 1
        self._enough = self.whole + 2.0**self._misses - 1.5

    def locate(self, space: KeySpace) -> None:
        """Learn the places of its keys."""
        end = 1.0 if self.high is None else space.place(self.high)
        self.places = space.place(self._begin), space.place(self.low), end
        self._page = self.places[1] - space.place(self._first)

    def cut(self, space: KeySpace, usual: float, worth: float) -> str | None:
        """A key to cut it at, if more than ``worth`` pages are still to come; ``usual`` is the width of a page."""
        waits = self._misses > 0 and self.guess is not None and not self.guess.answered
        state = space.version, self.low, self.high, worth, waits
        if state == self._tried or not self.low:
            return None
        self._tried = state
        begin, low, end = self.places
        width = (low - begin + self._empty + usual) / (self.whole + 1.0)
        if end - low > worth * width > 0.0:
            key: str | None = space.key((low + end) / 2, width / _PRECISION)
        elif self.whole and not waits and self.whole >= self._enough and (inside := self._cut_inside(space, worth)):
            key = inside
        else:
            key = space.beyond() if self.high is None and self.whole else None
        return key if key is not None and self.low < key and (self.high is None or key < self.high) else None

    def _cut_inside(self, space: KeySpace, worth: float) -> str | None:
        """A key to cut it at among those that begin nearly as its last page's do."""
        low, width = self.places[1], self._page
        for length in range(len(self._alike), len(space.common), -1) if width > 0.0 else ():
            last = after(self._alike[:length])
            is_all = self.high is not None and last >= self.high
            end = self.places[2] if is_all else space.place(last)
            if end - low > (worth if is_all else 2 * worth) * width:
                return space.key((low + end) / 2, width / _PRECISION)
            if is_all:
                break
        return None


class Cut(NamedTuple):
    """A segment's number, and the key to cut it at."""

    number: int
    key: str


class Cuts:
    """Where to cut the segments of one listing, all of whose keys begin with ``prefix``."""

    def __init__(self, prefix: str) -> None:
        self._space = KeySpace(prefix)
        self._version = 0  # of the key space, that the segments' places are of
        self._page_size = 1  # keys
        self._pages = 0  # that have come
        self._whole = 0.0  # that would have been enough

    def learn(
        self, surveys: Sequence[Survey], number: int, keys: Sequence[str], *, is_cut_off: bool, is_last: bool
    ) -> None:
        """A page of a segment has come.

        Args:
            surveys: of all segments.
            number: of this one.
            keys: those of the page that are the segment's.
            is_cut_off: whether it had others after them.
            is_last: whether the server has no more pages.
        """
        survey = surveys[number]
        survey.answered = True
        self._pages += 1
        self._page_size = max(self._page_size, len(keys))
        share = 1.0  # whatever the server put into it
        if is_cut_off or (is_last and not keys):
            share = len(keys) / self._page_size
        self._whole += share
        if keys:
            self._space.learn(keys, before=survey.low)
            survey.take(keys, share)
        stale = surveys if self._version != self._space.version else (survey,)
        self._version = self._space.version
        for each in stale:
            each.locate(self._space)
        if not keys and is_cut_off and number:
            surveys[number - 1].miss(survey.places[2] - survey.places[1])

    def locate(self, *surveys: Survey) -> None:
        """Segments are new, or have another end."""
        for survey in surveys:
            survey.locate(self._space)

    def find(self, surveys: Sequence[Survey | None]) -> Cut | None:
        """The first cut that is worth it, of segments that are not complete (of which there is none)."""
        there = [survey for survey in surveys if survey is not None]
        worth = self._worth(sum(not survey.answered for survey in there))
        whole = sum(survey.whole for survey in there)
        usual = sum(survey.places[1] - survey.places[0] for survey in there) / whole if whole else 0.0
        for number, survey in enumerate(surveys):
            key = survey.cut(self._space, usual, worth) if survey is not None else None
            if key is not None:
                return Cut(number, key)
        return None

    def _worth(self, guesses: int) -> float:
        """How many pages must be still to come where a cut is made, with so many guesses under way."""
        vain = self._pages - self._whole
        # Of each guess half a page is listed twice, and as many of them find nothing as before.
        vain += guesses * max(0.5, (vain + 1.0) / (self._pages + 2.0))
        if vain < _SPARE[0] + _SPARE[1] * self._whole:
            return _FREELY
        return _CAREFULLY if vain < _LIMIT[0] + _LIMIT[1] * self._whole else float("inf")
