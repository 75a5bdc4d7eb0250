"""The moment when all of an object has come: its checksum is compared before its last bytes are handed over."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from s3torchconnector._transfer._fetch import direct
from s3torchconnector._transfer._fetch_group import FetchGroup
from s3torchconnector._transfer._integrity import ObjectIntegrity, Summed, differing
from s3torchconnector._transfer._object_version import ObjectVersion
from s3torchconnector._transfer._ranges import Range, split_on_grid
from s3torchconnector._transfer._runtime import Runtime
from s3torchconnector._transfer._workers import Lane
from s3torchconnector._wire import Caller, requests

_IN_EARNEST = 2  # parts, read or fetched ahead: a reader of everything, not one that looks at a beginning


def ask_early(version: ObjectVersion, caller: Caller) -> None:
    """Learn the checksum of the whole object, unless it is known. Does not raise."""
    integrity = version.integrity_by(caller)
    request = requests.head_object(version.bucket, version.key, checksum=True, if_match=version.etag)
    integrity.ask(
        lambda: caller.call(request, lambda response: integrity.learn(response.headers, response.length or 0))
    )


def ask_in_background(version: ObjectVersion, caller: Caller, lane: Lane) -> None:
    """``ask_early``, by a worker; what comes in the meantime waits to be summed, for as long as that pays."""
    version.integrity_by(caller).announce()
    lane.submit(partial(ask_early, version, caller))


def prepare_verification(version: ObjectVersion, runtime: Runtime, *, whole: bool) -> None:
    """Before an object is asked for in many ranges: whether these are all of it, so that its checksum will be compared,
    or not, so that nothing needs to be summed."""
    if whole:
        ask_in_background(version, runtime.caller, runtime.lane())
    else:
        version.integrity_by(runtime.caller).give_up()


class Verification:
    """What one reader reads, against the checksum of its object."""

    def __init__(self, version: ObjectVersion, runtime: Runtime) -> None:
        self._version = version
        self._runtime = runtime
        self._asked = False

    def ask_early(self, lane: Lane, position: int, run: int, ahead: int) -> None:
        """``run`` bytes are being read in order, the last from ``position`` on, and ``ahead`` more fetched unasked: ask
        for the checksum of a large object that may well be read to its end, before its bytes come: those would be
        summed in vain if there is none."""
        size, part_size = self._version.size, self._runtime.config.part_size
        if size is None:
            size = run if position == 0 else 0  # a large first read from the beginning is of all
        if not self._asked and size > part_size and run + ahead >= min(size // 2, _IN_EARNEST * part_size):
            self.ask_in_background(lane)

    def ask_in_background(self, lane: Lane) -> None:
        self._asked = True
        ask_in_background(self._version, self._runtime.caller, lane)

    def hand_over(self, position: int, view: memoryview, lane: Lane, forget: Callable[[], None]) -> None:
        """What is in ``view`` is about to be the program's; ``forget`` drops what else was read.

        Raises:
            S3ChecksumError: bytes are wrong, or cannot be verified although they must be.
        """
        if position == 0 and len(view) == self._version.size:
            again = partial(self._fetch_again, view, lane, forget)
            verify_whole(self._version, self._runtime.caller, view, again)
        else:
            self.check()

    def check(self) -> None:
        """Compare, if every byte of the object has come.

        Raises:
            S3ChecksumError: see ``hand_over``.
        """
        verify_if_complete(self._version, self._runtime.caller)

    def _fetch_again(self, view: memoryview, lane: Lane, forget: Callable[[], None]) -> None:
        """The whole object, and nothing of what is here."""
        forget()
        fetch_all(self._version, self._runtime, lane, view)


def verify_if_complete(version: ObjectVersion, caller: Caller) -> None:
    """Compare, if every byte of the object has come since this was done last.

    Raises:
        S3ChecksumError: some are wrong, or cannot be verified although they must be.
    """
    integrity, size = version.integrity, version.size
    if integrity is None or size is None or not integrity.covers(size):
        return
    ask_early(version, caller)  # first, since it may tell what to sum with
    expected = integrity.demand(size, version.etag)
    crc = integrity.combined(integrity.take(), size)
    if crc is not None and integrity.algorithm is not None and expected.get(integrity.algorithm, crc) != crc:
        raise integrity.mismatch(Range(0, size))


def verify_whole(version: ObjectVersion, caller: Caller, view: memoryview, refetch: Callable[[], None]) -> None:
    """Compare the whole object that one read has put into ``view``, and fetch it again once where it is wrong.

    Raises:
        S3ChecksumError: it is wrong again, or cannot be verified although it must be.
    """
    integrity = version.integrity
    if integrity is None or not len(view):
        return
    ask_early(version, caller)
    if not integrity.demand(len(view), version.etag):
        return
    first = integrity.take()
    if _is_right(integrity, first, view):
        return
    refetch()
    second = integrity.take()
    if not _is_right(integrity, second, view):
        raise integrity.mismatch(differing(first, second, len(view)))


def fetch_all(version: ObjectVersion, runtime: Runtime, lane: Lane, view: memoryview) -> None:
    """Fetch a whole object into ``view``."""
    with FetchGroup(lane, runtime.caller) as group:
        for piece in split_on_grid(0, len(view), runtime.config.part_size):
            group.start(direct(version, piece, view, 0))


def _is_right(integrity: ObjectIntegrity, pieces: dict[int, Summed], view: memoryview) -> bool:
    """Compare by what was summed on arrival, or, where some of that is missing or of another kind, by going through."""
    expected = integrity.expected or {}
    crc = integrity.combined(pieces, len(view))
    if crc is not None and integrity.algorithm in expected:
        return expected[integrity.algorithm] == crc
    algorithm = next(iter(expected))
    return algorithm.update(view, 0) == expected[algorithm]
