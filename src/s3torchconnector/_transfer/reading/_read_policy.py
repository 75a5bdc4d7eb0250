"""How reads become requests: a frozen value, and the pattern of a reader's recent reads."""

from typing import NamedTuple

from s3torchconnector._config import KIB, MIB

# Every step waits for a first byte: doubling took half a second to reach full speed, 8 times a third of one.
_TIMES_AHEAD = 16
# So many reads in a row are no accident. After each shorter run that ends with a jump, less is read ahead: a reader of
# a record's head, its body, and then another record was sent seventeen times what it read.
_PROVEN = 4
# Bytes that are fetched early of an object of which, and of others of which, no size is known: all of most objects, and
# of large ones no more than there is memory for.
FIRST_BYTES = 1 * MIB
DEFAULT_MAX_GAP_SIZE = 32 * MIB  # of ``ReadPolicy.max_gap``, for distributed checkpoints
_PROVEN_BACKWARDS = 2  # an archive's directory lies in front of its end, and is read after that: once


class ReadPolicy(NamedTuple):
    """What a reader fetches beyond what it is asked for. Sizes in bytes.

    Attributes:
        smallest: the least that is fetched into a buffer when a small, scattered read needs bytes.
        read_ahead: whether reads in order make the reader fetch what comes next.
        eager: take the very first read as the first of reads in order.
        near: a jump forward by no more than this still counts as reading in order.
        max_gap: unwanted bytes between two wanted ranges that are fetched to save a request, if the ranges are known
            beforehand (distributed checkpoints); None: as many as pay.
    """

    smallest: int = 256 * KIB
    read_ahead: bool = True
    eager: bool = False
    near: int = 64 * KIB
    max_gap: int | None = None


ADAPTIVE = ReadPolicy()
SEQUENTIAL = ReadPolicy(eager=True, near=8 * MIB)


def range_based(buffer_size: int) -> ReadPolicy:
    """Exactly what is asked for, but at least ``buffer_size`` bytes."""
    return ReadPolicy(smallest=buffer_size, read_ahead=False)


def is_read_whole(beginning: bytes | memoryview) -> bool:
    """Whether an object that begins like this is read to its end, wherever its readers look first.

    That is an archive of ``torch.save``: its directory is at its end.

    Its first entry is the pickle, see https://docs.pytorch.org/docs/stable/notes/serialization.html; what an entry
    begins with is in 4.3.7 of https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
    """
    name_length = int.from_bytes(beginning[26:28], "little")
    return beginning[:4] == b"PK\3\4" and bytes(beginning[30 : 30 + name_length]).endswith(b"/data.pkl")


class ReadPattern:
    """Whether a reader's recent reads follow each other, and for how long they have.

    Attributes:
        policy: the reader's.
        run: bytes read in order so far, forwards or backwards.
        expects_all: whether the object will probably be read whole, wherever the reader is now: blocks are kept for
            reads that have not come to them yet.
    """

    run = 0
    expects_all = False
    _start = _end = 0  # of the last read
    _reads = 0  # reads in order so far
    _times_ahead = _TIMES_AHEAD
    _reads_back = 0  # reads so far that each ended where the one before it began

    def __init__(self, policy: ReadPolicy) -> None:
        self.policy = policy

    def note(self, start: int, stop: int) -> None:
        """A read of these bytes begins."""
        if 0 <= start - self._end <= self.policy.near and self._reads:
            self._reads += 1
            self.run += stop - self._end
            self._reads_back = 0
            if self._reads >= _PROVEN:
                self._times_ahead = _TIMES_AHEAD
        elif 0 <= self._start - stop <= self.policy.near and self._reads:
            self.run = self.run * (self._reads_back > 0) + self._start - start
            self._reads, self._reads_back = 1, self._reads_back + 1
        else:
            self._reads_back = 0
            if 1 < self._reads < _PROVEN:
                self._times_ahead //= 4
            self._reads = 1
            self.run = stop - start
        self._start, self._end = start, stop

    @property
    def continues(self) -> bool:
        """Whether the last read began where the one before it ended, or a little after that."""
        return self._reads > 1

    @property
    def in_order(self) -> bool:
        """Whether what follows the last read is worth fetching unasked."""
        return self.policy.read_ahead and (self.continues or self.policy.eager)

    @property
    def goes_back(self) -> bool:
        """Whether reads follow each other towards the object's beginning."""
        return self._reads_back >= _PROVEN_BACKWARDS

    def ahead(self, most: int) -> int:
        """How many bytes to be ahead of a reader that reads in order: a few times what it has read so far."""
        return most if self.policy.eager else min(self._times_ahead * self.run, most)

    def before(self, most: int) -> int:
        """How many bytes to fetch in front of a read, where the next one is expected."""
        return min(_TIMES_AHEAD * self.run, most) if self.goes_back and self.policy.read_ahead else 0
