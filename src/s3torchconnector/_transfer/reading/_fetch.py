"""One range of one object into memory: verified, and resumed at the last good byte."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from s3torchconnector._errors import S3ChecksumError, S3ProtocolError
from s3torchconnector._transfer.engine._memory import populate
from s3torchconnector._transfer.engine._ranges import ContentRange, Range, parse_content_range
from s3torchconnector._transfer.reading._discard import discarded
from s3torchconnector._transfer.reading._integrity import ObjectIntegrity, Sum
from s3torchconnector._transfer.reading._ledger import NOT_SUMMED, Sums
from s3torchconnector._transfer.reading._object_version import ObjectVersion
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import Caller, CancelToken, Exchange, Request, Response, operations

_FULL = memoryview(b"")


Allocate = Callable[[Range], memoryview]
"""Gives memory for the bytes that will come: called when the first answer has told which these are, and where it gave
less than all of them need, again for the others whenever what it gave is full."""
Accept = Callable[[Range, bytes], None]
"""Takes bytes that have come all at once; called instead of ``Allocate``."""


class RangeFetch:
    """Fetches bytes ``start`` up to ``stop`` of an object, or as many as there are, from one request at a time.

    A negative ``start`` with ``stop=None`` means the last bytes. ``run`` returns the range that was received. Either
    it does everything, or ``begin`` sends the first request, ``proceed`` receives what is here as often as more has
    come, and ``run`` does the rest where that fails.
    """

    def __init__(
        self,
        version: ObjectVersion,
        start: int,
        stop: int | None,
        allocate: Allocate,
        accept: Accept | None = None,
    ) -> None:
        self._version = version
        self._start = start
        self._stop = stop
        self._allocate = allocate
        self._accept = accept
        self._range: Range | None = None  # known from the first answer on
        self._memory = _FULL  # what was allocated last
        self._view = _FULL  # what is left of it
        self._sum: Sum | None = None
        self._done = 0  # bytes received, over all attempts
        self._begun: tuple[Request, Exchange] | None = None
        self._verified: Response | None = None  # the answer being received, once it was found to be what is wanted
        self._size_untold = False

    def begin(self, caller: Caller, cancel: CancelToken, *, wait: bool, connect: bool) -> Exchange:
        """Send the first request, for ``run`` to receive its answer later.

        Raises:
            PoolIsFull: all connections are in use, and ``wait`` is false.
            NoneIdle: a connection has to be opened, and ``connect`` is false.
            S3Exception: it could not be sent; ``run`` tries again.
        """
        self._version.integrity_by(caller)
        request = self._request()
        exchange = caller.send(request, cancel, wait=wait, connect=connect)
        self._begun = request, exchange
        return exchange

    def proceed(self, caller: Caller, scratch: bytearray) -> Range | None:
        """Receive what is here of the answer to what ``begin`` has sent; see ``Connection.lend``.

        Returns what was received, or None if ``run`` has to ask another way.

        Raises:
            NotYet: more is to come.
            S3Exception: it failed; ``run`` tries again, if that may help.
        """
        assert self._begun is not None
        request, exchange = self._begun
        exchange.set_nonblocking(scratch)
        received = caller.receive(exchange, request, self._receive)
        self._begun, self._size_untold = None, received is None
        return received

    def fetch(self, caller: Caller, cancel: CancelToken | None = None) -> Range:
        """Fetch.

        Raises:
            S3Exception: see ``Caller.call``; S3ObjectChangedError, S3ProtocolError: the answer is not what was asked.
        """
        self._version.integrity_by(caller)
        begun = None
        if self._begun is not None:
            begun, self._begun = self._begun[1], None
            begun.set_nonblocking(None)
        received = None if self._size_untold else caller.call(self._request, self._receive, cancel, begun)
        if received is None:
            # 416 without the object's size (RFC 9110 only recommends to tell it), so this is asked for separately.
            self._begin(
                caller.call(operations.head_object(self._version.bucket, self._version.key), self._learn, cancel)
            )
            received = self._range if not self._range else caller.call(self._request, self._receive, cancel)
        if received is None:
            uri = display_uri(self._version.bucket, self._version.key)
            raise S3ProtocolError(f"the server refuses a range of {uri} that the object has")
        return received

    @property
    def received(self) -> Range:
        """What has come, once all has."""
        return cast(Range, self._range)

    def take_sums(self) -> Sums:
        """The checksums of what has come since this was asked last, up to the end of memory that is full."""
        sums = NOT_SUMMED if self._sum is None else self._sum.sums()
        self._sum = Sum(cast(ObjectIntegrity, self._version.integrity))
        return sums

    def _request(self) -> Request:
        if self._range is None:
            return self._version.request(self._start, self._stop)
        return self._version.request(self._range.start + self._done, self._range.stop)

    def _begin(self, actual: Range) -> Range:
        """From the first answer on it is known which bytes will come, and memory can be had for them."""
        self._range = actual
        self._memory = self._view = self._allocate(actual)
        return actual

    def _learn(self, response: Response) -> Range:
        self._version.hold_to(response.length or 0, response.headers.get("etag"))
        return self._expected(response.length or 0)

    def _receive(self, response: Response) -> Range | None:
        if response is not self._verified and not self._get_ready(response):
            return None
        wanted = cast(Range, self._range)
        size = wanted.stop - wanted.start
        while self._done < size:
            while not self._view:
                self._memory = self._view = self._allocate(Range(wanted.start + self._done, wanted.stop))
            count = response.readinto(self._view)
            if not count:
                raise S3ProtocolError(f"the answer ended after {self._done} of {size} bytes")
            self._done += count
            self._view = self._view[count:]
            if not self._view or self._done == size:
                self._fill_up(wanted)
        # Mostly methods of the owner, whom they would keep alive until the garbage collection: 50 us a small object.
        self._allocate, self._accept = _nowhere, None
        return wanted

    def _get_ready(self, response: Response) -> bool:
        """Hold an answer to what is wanted, and have memory for it; False where it does not tell the object's size."""
        content = _content_of(response)
        if content is None:
            return False
        self._verify(response, content)
        self._learn_checksum(response, content)
        wanted = self._range
        if wanted is None:
            wanted = self._expected(content.size)
            if self._accept is not None and wanted.start == content.start and self._take_whole(response, wanted):
                return True
            self._begin(wanted)
        if not self._done:  # only now, when the answer may have told what to sum with
            self._sum = Sum(cast(ObjectIntegrity, self._version.integrity))
        if wanted and wanted.start + self._done > content.start:  # of nothing, as behind the end, nothing precedes it
            _discard(response, wanted.start + self._done - content.start)
        self._verified = response
        return True

    def _fill_up(self, wanted: Range) -> None:
        """The memory given last is full, or all has come."""
        full, size = self._memory[: len(self._memory) - len(self._view)], wanted.stop - wanted.start
        # The memory must be free of views when its owner is told that it is full.
        self._memory = self._view = _FULL
        assert self._sum is not None
        self._sum.add(full)
        if self._done < size:
            return
        if len(full) < size or not self._is_all(wanted):
            return
        try:
            self._sum.check(wanted)  # at once, so that nobody has seen any of it
        except S3ChecksumError:
            # Asked again, it is received anew.
            self._memory = self._view = full
            self._done, self._verified = 0, None
            raise

    def _is_all(self, wanted: Range) -> bool:
        return wanted == (0, self._version.size)

    def _take_whole(self, response: Response, wanted: Range) -> bool:
        """Hand over the body if it came with the head, and is what is wanted."""
        data = response.pop_whole() if response.length == wanted.stop - wanted.start else None
        if data is None or self._accept is None:
            return False
        assert self._version.integrity is not None
        received = Sum(self._version.integrity)
        received.add(data)
        if self._is_all(wanted):
            received.check(wanted)
        self._sum = received
        self._range, self._done = wanted, len(data)
        self._accept(wanted, data)
        return True

    def _verify(self, response: Response, content: ContentRange) -> None:
        """Hold the answer to the request and to the version."""
        etag = response.headers.get("etag") if response.status != 416 else None
        self._version.compare(content.size, etag)
        expected = self._expected(content.size)
        got = Range(content.start, content.stop)
        # A server that knows no ranges sends everything; the bytes before the wanted ones are skipped.
        whole = got == (0, content.size) and response.status == 200
        if not whole and got != expected and (got or expected):
            raise S3ProtocolError(
                f"the answer has the bytes {got.start} to {got.stop}, not the {expected.start} to {expected.stop} "
                "asked for"
            )
        if response.status != 416 and response.length not in (None, got.size):
            raise S3ProtocolError(f"the answer has {response.length} bytes, but its Content-Range says {got.size}")
        self._version.hold_to(content.size, etag)  # last: what a wrong answer says must not be believed

    def _learn_checksum(self, response: Response, content: ContentRange) -> None:
        # An answer with a range may tell the checksum of that.
        if self._version.integrity is not None and content.size and content[:2] == (0, content.size):
            self._version.integrity.learn(response.headers, content.size)

    def _expected(self, size: int) -> Range:
        if self._range is not None:
            return Range(self._range.start + self._done, self._range.stop)
        start = max(0, size + self._start) if self._start < 0 else min(self._start, size)
        return Range(start, size if self._stop is None else max(start, min(self._stop, size)))


def direct(version: ObjectVersion, wanted: Range, view: memoryview, position: int) -> RangeFetch:
    """A fetch into its place in ``view``, which holds the object from ``position`` on."""

    def allocate(got: Range) -> memoryview:
        place = view[got.start - position : got.stop - position]
        populate(place)
        return place

    return RangeFetch(version, wanted.start, wanted.stop, allocate)


def _nowhere(_: Range) -> memoryview:
    raise AssertionError("all bytes have been received")


def _content_of(response: Response) -> ContentRange | None:
    """Which bytes of how many an answer holds; None where it refuses the range and does not tell the size."""
    header = response.headers.get("content-range")
    if header is not None:
        return parse_content_range(header)
    if response.status == 416:
        return None
    if response.status == 206:
        raise S3ProtocolError("the answer is partial but has no Content-Range")
    if response.length is None:
        raise S3ProtocolError("the answer tells neither the object's size nor its range")
    return ContentRange(0, response.length, response.length)


def _discard(response: Response, count: int) -> None:
    """Receive the bytes before the wanted ones, from a server that ignores ranges, and throw them away."""
    for view in discarded(count):
        while view:
            received = response.readinto(view)
            if not received:
                raise S3ProtocolError("the answer ended before the bytes that were asked for")
            view = view[received:]
