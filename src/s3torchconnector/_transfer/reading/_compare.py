"""Compares the bytes of an object that were handed out with the checksum that S3 stores, and requests that in time.

An object that was handed out whole was compared. If it could not be, that is an error or a warning in the log, as the
configuration says.
"""

from __future__ import annotations

from functools import partial

from s3torchconnector import _wire
from s3torchconnector._errors import S3AccessDeniedError, S3ChecksumError, S3Exception, S3ServiceError
from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.engine._runtime import Runtime
from s3torchconnector._transfer.engine._workers import Lane
from s3torchconnector._transfer.reading._fetch import RangeFetch
from s3torchconnector._transfer.reading._integrity import ObjectIntegrity
from s3torchconnector._transfer.reading._ledger import Ledger
from s3torchconnector._transfer.reading._object_version import ObjectVersion
from s3torchconnector._transfer.reading._read_again import read_again
from s3torchconnector._wire import Algorithm, Caller, Quirk


def ask_for_checksum(version: ObjectVersion, caller: Caller) -> None:
    """Request the checksum of the whole object, unless it is known. Does not raise."""
    integrity = version.integrity_by(caller)
    if integrity.knows(version.size, version.etag):
        return
    integrity.ask(partial(_ask, version, caller, integrity), version.size, version.etag)


def _ask(version: ObjectVersion, caller: Caller, integrity: ObjectIntegrity) -> None:
    if caller.quirks.has(version.bucket, Quirk.NO_HEAD):  # and the response with one byte tells no checksum of all
        raise S3AccessDeniedError("the server forbids HEAD requests, which alone would tell it")
    head = partial(version.head, checksum=True)
    try:
        version.call(caller, head, lambda response: integrity.learn(response.headers, response.length or 0))
    except S3ServiceError as error:
        if _wire.is_of_head(error):  # of an object that is being read
            caller.quirks.note(version.bucket, Quirk.NO_HEAD)
        raise


def ask_in_background(version: ObjectVersion, caller: Caller, lane: Lane) -> None:
    """``ask_for_checksum`` by a worker. What comes meanwhile waits to be summed, as long as that pays."""
    version.integrity_by(caller).announce()
    lane.submit(partial(ask_for_checksum, version, caller))


def prepare_verification(version: ObjectVersion, runtime: Runtime, *, whole: bool) -> None:
    """Call this before many ranges of an object are requested.

    Args:
        whole: whether they are all of it: then its checksum will be compared, otherwise nothing needs to be summed.
    """
    if whole:
        ask_in_background(version, runtime.caller, runtime.lane())
    else:
        version.integrity_by(runtime.caller).skip()


def expected_checksum(
    version: ObjectVersion, caller: Caller, integrity: ObjectIntegrity
) -> tuple[Algorithm, int] | None:
    """The checksum of a whole object, all of which has come; None if there is none, which is logged.

    Raises:
        S3ChecksumError: there is none, although the configuration requires one.
    """
    ask_for_checksum(version, caller)
    return integrity.expected_checksum(version.size or 0, version.etag)


def compare(version: ObjectVersion, caller: Caller, integrity: ObjectIntegrity, ledger: Ledger) -> None:
    """Compare what the ledger has, which is all of the object.

    Raises:
        S3ChecksumError: some bytes are wrong, or cannot be verified although the configuration requires it.
    """
    ledger.note_compared()
    if ledger.wrong is not None:
        raise integrity.mismatch(ledger.wrong)
    expected = expected_checksum(version, caller, integrity)
    if expected is None:
        return
    if ledger.overflowed:
        integrity.report_unverified("it was read in more pieces than checksums are kept for")
        return
    if not ledger.is_summed:
        integrity.report_unverified("some of it was received while its bucket was not expected to have checksums")
        return
    try:
        read_again(version, caller, ledger, expected[0])
    except S3ChecksumError:
        raise
    except S3Exception as error:
        integrity.report_unverified(f"some of it had to be read again to verify it, which failed: {error}")
        return
    if ledger.wrong is not None:
        raise integrity.mismatch(ledger.wrong)
    size = version.size or 0
    if not is_right(ledger, expected, size):
        raise integrity.mismatch(Range(0, size), ledger.combined(expected[0], size))


def is_right(ledger: Ledger, expected: tuple[Algorithm, int], size: int) -> bool:
    """Whether the tiles have the checksum of the whole object; False if that is unknown."""
    algorithm, crc = expected
    return ledger.combined(algorithm, size) == crc


class Loaded:
    """What a load has received of one object, each byte straight into its place."""

    def __init__(self, version: ObjectVersion) -> None:
        self._version = version
        self._ledger = Ledger()

    def add(self, fetch: RangeFetch) -> None:
        """This was fetched, and all of it is wanted."""
        integrity = self._version.integrity
        if integrity is not None and integrity.matters:
            received = fetch.received
            self._ledger.add(received, fetch.take_sums(), None, integrity.sums_of)
            self._ledger.hand_out(received.start, received.stop)

    def verify(self, caller: Caller) -> None:
        """Compare, if every byte of the object has been loaded.

        Raises:
            S3ChecksumError: some are wrong, or cannot be verified although the configuration requires it.
        """
        integrity, size = self._version.integrity, self._version.size
        if integrity is not None and size and integrity.matters and self._ledger.is_due(size):
            ledger, self._ledger = self._ledger, Ledger()
            compare(self._version, caller, integrity, ledger)
