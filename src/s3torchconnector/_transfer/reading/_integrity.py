"""The checksum that S3 stores of an object, and the sums of its bytes as they come.

The threads that receive ranges sum them. A response with a whole object contains its checksum; if an object arrives in
several ranges, one more request asks for it. Until the algorithm of a bucket's objects is known, ranges are summed with
every possible algorithm.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache

from s3torchconnector._config import MIB
from s3torchconnector._errors import S3ChecksumError, S3Exception
from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.reading._ledger import NOT_SUMMED, Sums
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import Algorithm, Buffer, ChecksumSupport, offered, why_none

_log = logging.getLogger(__name__)
# Many servers store no checksums. A program that has not set up logging gets no line on stderr for each of them.
_log.addHandler(logging.NullHandler())
# Bytes of an object kept until S3 has told which algorithm to sum them with: a first read, or a directory at its ends.
# Many readers never read more, many servers have no checksums, and the first sum imports awscrt.
_MOST_KEPT = 1 * MIB
_WORTH_WAITING = 0.2  # seconds for S3 to tell the algorithm: what has been received is not late yet


class ObjectIntegrity:
    """The checksum of one version, as far as S3 has told it. Thread-safe.

    Attributes:
        algorithms: what to sum ranges with: several until S3 has told, none if that is of no use.
        expected: the checksums of the whole object; None until S3 has told.
    """

    expected: dict[Algorithm, int] | None = None
    _told: threading.Event | None = None  # while S3 is asked in the background
    _about: tuple[int, str | None] | None = None  # size and ETag of the version that S3 told them of
    _reason = "the last objects of its bucket had no checksum, so none was requested for this one"
    _is_read_whole = True
    _found: int | None = None  # the last wrong checksum of the whole

    def __init__(self, support: ChecksumSupport, bucket: str, key: str) -> None:
        self.algorithms = support.candidates(bucket)
        self._support = support
        self._bucket = bucket
        self._key = key
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._room = _MOST_KEPT if len(self.algorithms) > 1 else 0

    def fork(self) -> ObjectIntegrity:
        """What is known, for a forked child or for another reader; its locks are new, so nobody holds them."""
        integrity = ObjectIntegrity(self._support, self._bucket, self._key)
        integrity.algorithms, integrity.expected, integrity._about = self.algorithms, self.expected, self._about
        integrity._reason, integrity._room = self._reason, 0
        return integrity

    @property
    def matters(self) -> bool:
        """Whether what is handed out of this object has to be recorded."""
        if self._support.off or not self._is_read_whole:
            return False
        return bool(self.algorithms) or self._support.required or not self._support.is_unverified(self._bucket)

    # -- what is expected -----------------------------------------------------------------------------------------

    def learn(self, headers: Mapping[str, str], size: int) -> None:
        """Take the checksums of the whole object from the headers of a response about all of it."""
        about = size, headers.get("etag")
        if self._about == about or self._support.off:
            return
        found = offered(headers)
        self._support.note(self._bucket, found)
        with self._lock:
            self._about, self.expected = about, found
            if not found:
                if self.matters:  # not for each small object of a bucket that was logged already
                    self._reason = why_none(headers)
                self.algorithms = ()
            elif self._is_read_whole:
                self.algorithms = tuple([each for each in self.algorithms if each in found] or found)[:1]
            self._room = 0

    def announce(self) -> None:
        """``ask`` will be called soon, by another thread: what comes before that is better summed after it."""
        self._told = threading.Event()

    def ask(self, send: Callable[[], object], size: int | None = None, etag: str | None = None) -> None:
        """Call ``send``, which asks S3 and learns the response, unless that was done or is of no use. Does not raise.

        Args:
            size, etag: of the version that is being read, if that is known.
        """
        try:
            with self._asking:
                if not self.knows(size, etag) and self._support.candidates(self._bucket):
                    send()
        except S3Exception as error:
            # The bytes come anyway, and nothing is known to be wrong with them.
            self._reason = f"the request for its checksum failed: {error}"
            _log.info("%s: %s", display_uri(self._bucket, self._key), self._reason)
        finally:
            if self._told is not None:
                self._told.set()

    def knows(self, size: int | None, etag: str | None) -> bool:
        """Whether S3 has told the checksum of this version: asked before the first byte came, it may be another's."""
        if self.expected is None or self._about is None:
            return False
        told_size, told_etag = self._about
        return size in (None, told_size) and (etag is None or told_etag in (None, etag))

    def await_algorithm(self) -> None:
        """Wait until S3 has told what to sum with, if it is being asked and does not take long."""
        told = self._told
        if told is not None and not told.is_set():
            told.wait(_WORTH_WAITING)
            told.set()  # if it has not come, nobody waits for it again

    def expected_checksum(self, size: int, etag: str | None) -> tuple[Algorithm, int] | None:
        """The checksum of the whole object of this size and ETag; None if there is none, which is logged.

        Raises:
            S3ChecksumError: there is none, although the configuration requires one.
        """
        known = self.knows(size, etag)
        expected = self.expected if known else None
        if expected:
            algorithm = next((each for each in self.algorithms if each in expected), next(iter(expected)))
            return algorithm, expected[algorithm]
        if self.expected is not None and not known:
            self._reason = "it was overwritten while it was being read, and the checksum of what was read is not known"
        self.report_unverified(self._reason)
        return None

    def report_unverified(self, reason: str) -> None:
        """All of the object is handed out and cannot be compared: logs why, once for each bucket.

        Raises:
            S3ChecksumError: the configuration requires a comparison.
        """
        if self._support.required:
            raise self._error(f'{reason}, and the configuration says checksum="required"', None)
        if self._support.note_unverified(self._bucket):
            _log.warning(
                "%s was read and not verified: %s. Other unverified objects of this bucket are not logged; "
                'checksum="required" makes this an error',
                display_uri(self._bucket, self._key),
                reason,
            )

    def skip(self) -> None:
        """Not all of the object will be read: nothing can be compared, so nothing needs to be summed."""
        with self._lock:
            self._is_read_whole = False
            self._room = 0
            self.algorithms = ()

    # -- what has come ----------------------------------------------------------------------------------------------

    def may_keep(self, data: Buffer) -> bool:
        """Whether to keep these bytes until S3 has told what to sum them with: if it has not, and they are few enough.

        If so, that many fewer of the following bytes may be kept.
        """
        with self._lock:
            fits = 0 < len(data) <= self._room
            self._room -= len(data) if fits else 0
            return fits

    def sums_of(self, data: Buffer) -> Sums:
        """The checksums of these bytes."""
        running = Sum(self)
        running.add(data)
        return running.sums()

    def mismatch(self, wrong: Range, found: int | None = None) -> S3ChecksumError:
        """The error for wrong bytes in this range; ``found`` is the checksum of the whole object that came instead."""
        text = f"bytes {wrong.start} to {wrong.stop} are not those that were stored: their checksum differs. They "
        if found is not None and found == self._found:
            text += (
                "came twice the same, so they were hardly changed on the way: they are damaged in storage, or the "
                'server keeps a wrong checksum of them. checksum="off" in S3ClientConfig reads them uncompared'
            )
        else:
            text += "were changed on the way or in memory, or are damaged in storage. Read them again, over another "
            text += "network if you can"
        self._found = found
        return self._error(text, wrong)

    def _error(self, text: str, wrong: Range | None) -> S3ChecksumError:
        error = S3ChecksumError(
            f"{display_uri(self._bucket, self._key)}: {text}",
            operation="GetObject",
            bucket=self._bucket,
            key=self._key,
        )
        if wrong is not None:
            error.start, error.stop = wrong.start, wrong.stop
        return error


class _NotCompared(ObjectIntegrity):
    """For objects that are read only in part: it knows nothing, so that all of them can share it."""

    def learn(self, headers: Mapping[str, str], size: int) -> None:
        """Take nothing from the headers of a response."""


@lru_cache(maxsize=64)
def not_compared(support: ChecksumSupport, bucket: str) -> ObjectIntegrity:
    """For objects of which only some bytes will be read: nothing is summed, and nothing compared."""
    integrity = _NotCompared(support, bucket, "")
    integrity.skip()
    return integrity


class Sum:
    """The checksums of one range while it is received, into one piece of memory after the other."""

    __slots__ = ("_begun", "_crcs", "_integrity", "_kept", "_useless")

    def __init__(self, integrity: ObjectIntegrity) -> None:
        self._integrity = integrity
        self._crcs: dict[Algorithm, int] = {}
        self._begun = False
        self._kept: bytes | None = None  # all that has come, if it is to be summed later
        self._useless = False

    def add(self, data: Buffer) -> None:
        """These bytes came next. Lets other threads run while it goes through large memory."""
        if self._useless or not self._is_of_use():
            return
        begun, self._begun = self._begun, True
        if not begun and self._integrity.may_keep(data):
            self._kept = bytes(data)
            return
        self._integrity.await_algorithm()
        if self._is_of_use():
            crcs = self._so_far()
            self._crcs = {algorithm: algorithm.update(data, crc) for algorithm, crc in crcs.items()}

    def _is_of_use(self) -> bool:
        """Whether there may be anything to compare with, by what S3 has told meanwhile."""
        if not self._integrity.algorithms:
            self._useless, self._crcs, self._kept = True, {}, None
        return not self._useless

    def _so_far(self) -> dict[Algorithm, int]:
        """The checksums to continue, with the algorithms that S3 has told meanwhile."""
        algorithms = self._integrity.algorithms
        kept, self._kept = self._kept, None
        if kept is not None:
            return {algorithm: algorithm.update(kept, 0) for algorithm in algorithms}
        if not self._crcs:
            return dict.fromkeys(algorithms, 0)
        # If none of these is S3's, the range will be read again, and this shows then whether the bytes are the same.
        return {each: self._crcs[each] for each in algorithms if each in self._crcs} or self._crcs

    def sums(self) -> Sums:
        """The checksums of all that has come."""
        return Sums(self._crcs, self._kept) if self._crcs or self._kept is not None else NOT_SUMMED

    def check(self, received: Range) -> None:
        """All of the object has come, and nothing of it was handed out yet: compare it.

        Raises:
            S3ChecksumError: it is wrong.
        """
        expected = self._integrity.expected
        if not expected:
            return
        sums = self.sums()
        for algorithm in self._integrity.algorithms:
            crc = sums.of(algorithm)
            if crc is not None and expected.get(algorithm, crc) != crc:
                raise self._integrity.mismatch(received, crc)
