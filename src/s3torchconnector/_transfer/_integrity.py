"""Whether the bytes of an object that came, in whatever ranges, are those that S3 keeps a checksum of.

Ranges are summed by the threads that receive them, and their sums put together once every byte has come. S3 tells the
checksum of the whole with an answer that holds the whole object; an object that came in several ranges is asked for
its checksum separately, once. The kind of checksum must be known before that, and is taken to be that of other objects
in the bucket.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

from s3torchconnector._config import MIB
from s3torchconnector._errors import S3ChecksumError, S3Exception
from s3torchconnector._transfer._ranges import Range
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import Algorithm, Buffer, ChecksumSupport, offered

_log = logging.getLogger(__name__)
_MOST_PIECES = 50_000  # a reader of small ranges at random would collect them for ever
# Bytes of an object kept to be summed when S3 has told what with: a first read, or a directory at an object's ends.
# Many readers never read more, many servers have no checksums, and the first sum imports awscrt.
_MOST_KEPT = 1 * MIB
_WORTH_WAITING = 0.2  # seconds for S3 to tell what to sum with: what has been received is not late yet


class Summed(NamedTuple):
    """A range that has come, up to but without ``stop``, and its checksum."""

    stop: int
    crc: int


class Kept(NamedTuple):
    """A range that has come, up to but without ``stop``, to be summed later."""

    stop: int
    data: bytes


class ObjectIntegrity:
    """The checksums of what has come of one version. Thread-safe.

    Attributes:
        algorithm: what to sum ranges with; None where that is of no use.
        expected: the checksums of the whole object; None until S3 was asked.
    """

    def __init__(self, support: ChecksumSupport, bucket: str, key: str) -> None:
        self.algorithm = support.likely(bucket)
        self.expected: dict[Algorithm, int] | None = None
        self._support = support
        self._bucket = bucket
        self._key = key
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._told: threading.Event | None = None  # while S3 is asked in the background
        self._about: tuple[int, str | None] | None = None  # size and ETag of what S3 told them of
        self._pieces: dict[int, Summed | Kept] = {}  # by where they start
        self._covered = 0
        self._room = 0 if support.knows(bucket) else _MOST_KEPT

    # -- what is expected -----------------------------------------------------------------------------------------

    def learn(self, headers: Mapping[str, str], size: int) -> None:
        """Take the checksums of the whole object from the headers of an answer that is about all of it."""
        about = size, headers.get("etag")
        if self._about == about or self._support.off:
            return
        found = offered(headers)
        self._support.note(self._bucket, found)
        with self._lock:
            self._about, self.expected = about, found
            if self.algorithm not in found and (found or not self._support.required):
                # What came before was summed in vain, and must not keep what comes from being verified.
                self.algorithm = next(iter(found), None)
                if self._pieces:
                    self._pieces = {start: piece for start, piece in self._pieces.items() if isinstance(piece, Kept)}
                    self._covered = sum(piece.stop - start for start, piece in self._pieces.items())
            self._room = 0

    def announce(self) -> None:
        """``ask`` will be called soon, by another thread: what comes in the meantime is better summed after that."""
        self._told = threading.Event()

    def ask(self, send: Callable[[], object]) -> None:
        """Have ``send`` ask S3, whose answer is to be learnt, unless that was done or is of no use. Does not raise."""
        try:
            with self._asking:
                if self.expected is None and self._support.likely(self._bucket) is not None:
                    send()
        except S3Exception as error:
            # The bytes come anyway, and nothing is wrong with them as far as anybody knows.
            _log.info("%s cannot be verified: %s", display_uri(self._bucket, self._key), error)
        finally:
            if self._told is not None:
                self._told.set()

    def await_answer(self) -> None:
        """Wait until S3 has told what to sum with, if it is being asked and the answer does not take long."""
        told = self._told
        if told is not None and not told.is_set():
            told.wait(_WORTH_WAITING)
            told.set()  # if it has not come, nobody waits for it again

    def demand(self, size: int, etag: str | None) -> dict[Algorithm, int]:
        """The checksums of the whole object of this size and ETag, as far as they are known.

        Raises:
            S3ChecksumError: there are none, although the configuration requires them.
        """
        told_size, told_etag = self._about or (None, None)
        # Asked early, S3 may have told of another version than the one that was read.
        same = told_size == size and (etag is None or told_etag in (None, etag))
        found = (self.expected or {}) if same else {}
        if not found and self._support.required:
            raise self._error(
                'the server offers no checksum of the whole object, and the configuration says checksum="required"',
                None,
            )
        return found

    def give_up(self) -> None:
        """Not all of the object will be read: nothing can be compared, and nothing needs to be summed."""
        with self._lock:
            self._pieces.clear()
            self._covered = self._room = 0
            self.algorithm = None

    # -- what has come ----------------------------------------------------------------------------------------------

    def add(self, received: Range, algorithm: Algorithm, crc: int) -> None:
        """These bytes are here."""
        with self._lock:
            if algorithm is self.algorithm and len(received):
                self._put(received, Summed(received.stop, crc))

    def may_keep(self, data: Buffer) -> bool:
        """Whether these bytes are better summed once S3 has told what with, and few enough to be kept until then.

        If so, that much less may be kept of what follows.
        """
        with self._lock:
            fits = 0 < len(data) <= self._room
            self._room -= len(data) if fits else 0
            return fits

    def keep(self, received: Range, data: bytes) -> None:
        """These bytes are here, and not summed."""
        with self._lock:
            self._put(received, Kept(received.stop, data))

    def _put(self, received: Range, piece: Summed | Kept) -> None:
        """Under the lock."""
        replaced = self._pieces.get(received.start)
        if replaced is not None:
            self._covered -= replaced.stop - received.start
        self._pieces[received.start] = piece
        self._covered += len(received)
        if len(self._pieces) > _MOST_PIECES:
            self._pieces.clear()
            self.algorithm = None

    def covers(self, size: int) -> bool:
        """Whether every byte may have come since the last ``take``: if not, ``take`` need not be tried."""
        return 0 < size <= self._covered

    def take(self) -> dict[int, Summed]:
        """What has come, all of it summed; from now on all begins anew."""
        with self._lock:
            taken, self._pieces = self._pieces, {}
            self._covered = 0
            algorithm = self.algorithm
        if algorithm is None:
            return {}
        return {
            start: piece if isinstance(piece, Summed) else Summed(piece.stop, algorithm.update(piece.data, 0))
            for start, piece in taken.items()
        }

    def combined(self, pieces: dict[int, Summed], size: int) -> int | None:
        """The checksum of the whole object; None where pieces are missing, or overlap."""
        crc = position = 0
        while position < size:
            piece = pieces.get(position)
            if piece is None or self.algorithm is None:
                return None
            crc = self.algorithm.combine(crc, piece.crc, piece.stop - position)
            position = piece.stop
        return crc if position == size else None

    def contradicts(self, algorithm: Algorithm, crc: int) -> bool:
        """Whether this is not the checksum of the whole object."""
        return self.expected is not None and self.expected.get(algorithm, crc) != crc

    def mismatch(self, wrong: Range) -> S3ChecksumError:
        """The error for wrong bytes in this range."""
        return self._error(
            f"bytes {wrong.start} to {wrong.stop} are not those that were stored: their checksum is another. They "
            "were changed on their way or in memory, or are damaged in storage; read them again, by another way if you "
            "can",
            wrong,
        )

    def _error(self, text: str, wrong: Range | None) -> S3ChecksumError:
        error = S3ChecksumError(
            f"{display_uri(self._bucket, self._key)}: {text}",
            operation="GetObject",
            bucket=self._bucket,
            key=self._key,
        )
        if wrong is not None:
            error.start, error.stop = wrong
        return error


class Sum:
    """The checksum of one range while it is received into one piece of memory after the other."""

    def __init__(self, integrity: ObjectIntegrity) -> None:
        self._integrity = integrity
        self._algorithm = integrity.algorithm
        self._crc = 0
        self._begun = False
        self._kept: bytes | None = None  # all that has come, if it is to be summed later

    def add(self, data: Buffer) -> None:
        """These bytes came next. Lets other threads run while it goes through large memory."""
        if self._algorithm is None:
            return
        begun, self._begun = self._begun, True
        if not begun and self._integrity.may_keep(data):
            self._kept = bytes(data)
            return
        self._integrity.await_answer()
        if self._algorithm is not self._integrity.algorithm:
            self._algorithm = self._kept = None  # S3 has told meanwhile that this is of no use
            return
        if self._kept is not None:
            self._crc, self._kept = self._algorithm.update(self._kept, 0), None
        self._crc = self._algorithm.update(data, self._crc)

    def end(self, received: Range, *, whole: bool) -> None:
        """All has come, and nothing of it was handed out.

        Raises:
            S3ChecksumError: it is the whole object, and wrong.
        """
        if self._kept is not None:
            self._integrity.keep(received, self._kept)
            return
        if self._algorithm is None:
            return
        if whole and self._integrity.contradicts(self._algorithm, self._crc):
            raise self._integrity.mismatch(received)
        self._integrity.add(received, self._algorithm, self._crc)


def differing(first: dict[int, Summed], second: dict[int, Summed], size: int) -> Range:
    """From the first to the last range that came differently; all of the object where none is known to."""
    both = [(start, piece, second[start]) for start, piece in first.items() if start in second]
    ranges = [Range(start, one.stop) for start, one, two in both if one.stop == two.stop and one.crc != two.crc]
    return Range(min(ranges)[0], max(ranges)[1]) if ranges else Range(0, size)
