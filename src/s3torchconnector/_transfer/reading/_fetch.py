"""One range of one object into memory: verified, and resumed at the last good byte."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from s3torchconnector import _wire
from s3torchconnector._errors import S3ChecksumError, S3ProtocolError
from s3torchconnector._late_imports import no_fork
from s3torchconnector._transfer.engine._memory import populate
from s3torchconnector._transfer.engine._ranges import ContentRange, Range, parse_content_range
from s3torchconnector._transfer.reading._integrity import ObjectIntegrity, Sum
from s3torchconnector._transfer.reading._ledger import NOT_SUMMED, Sums
from s3torchconnector._transfer.reading._object_version import ObjectVersion
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import Caller, CancelToken, Exchange, Quirk, Request, Response, check_not_decompressed

if TYPE_CHECKING:
    from s3torchconnector._wire import Described

_FULL = memoryview(b"")
_VERSION_HEADER = "x-amz-version-id"

Allocate = Callable[[Range], memoryview]
"""Gives memory for the bytes that will come: called when the first response has told which these are. If the memory is
smaller, it is called again for the rest whenever the memory is full."""
Accept = Callable[[Range, bytes], None]
"""Takes bytes that came all at once; called instead of ``Allocate``."""


class RangeFetch:
    """Fetches bytes ``start`` up to ``stop`` of an object, or as many as there are, from one request at a time.

    A negative ``start`` with ``stop=None`` means the last bytes. ``fetch`` returns the range that was received. Either
    it does everything, or ``send`` sends the first request, ``receive_available`` receives the available bytes each
    time more have arrived, and ``fetch`` does the rest if that fails.
    """

    _range: Range | None = None  # known from the first response on
    _memory = _FULL  # what was allocated last
    _view = _FULL  # what is left of it
    _sum: Sum | None = None  # begun when bytes have come, and the response may have told what to sum with
    _done = 0  # bytes received, over all attempts
    _sent: tuple[Request, Exchange] | None = None  # by ``send``
    _checked: Response | None = None  # the response being received, once its head was found right
    _size_is_untold = False
    _is_beginning = False

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

    def send(self, caller: Caller, cancel: CancelToken, *, wait: bool, connect: bool) -> Exchange:
        """Send the first request; its response is received later.

        Raises:
            PoolIsFull: all connections are in use, and ``wait`` is false.
            NoIdleConnection: a connection has to be opened, and ``connect`` is false.
            S3Exception: it could not be sent; ``fetch`` tries again.
        """
        self._version.integrity_by(caller)
        request = self._request()
        exchange = caller.send(request, cancel, wait=wait, connect=connect)
        self._sent = request, exchange
        return exchange

    def receive_available(self, caller: Caller, scratch: bytearray) -> Range | None:
        """Receive what is here of the response to the request sent by ``send``; see ``Connection.set_nonblocking``.

        Returns what was received, or None if ``fetch`` has to ask in another way.

        Raises:
            NotYet: more is to come.
            S3Exception: it failed; ``fetch`` tries again, if that may help.
        """
        assert self._sent is not None
        request, exchange = self._sent
        exchange.set_nonblocking(scratch)
        received = caller.receive(exchange, request, self._receive)
        self._sent, self._size_is_untold = None, received is None
        return received

    def fetch(self, caller: Caller, cancel: CancelToken | None = None) -> Range:
        """Fetch.

        Raises:
            S3ObjectChangedError, S3ProtocolError: the response is not what was requested.
            S3Exception: see ``Caller.call``.
        """
        self._version.integrity_by(caller)
        sent = None
        if self._start < 0 and caller.quirks.has(self._version.bucket, Quirk.NO_SUFFIX_RANGES):
            self._size_is_untold = True
        if self._sent is not None:
            sent, self._sent = self._sent[1], None
            sent.set_nonblocking(None)
        received = None if self._size_is_untold else self._call(caller, cancel, sent)
        if received is None:
            if self._is_beginning:
                caller.quirks.note(self._version.bucket, Quirk.NO_SUFFIX_RANGES)
            # 416 without the object's size, which RFC 9110 only recommends: one more request asks for it.
            self._allocate_all(self._learn_size(_wire.describe(caller, self._version.head(), cancel)))
            received = self._range if not self._range else self._call(caller, cancel)
        if received is None:
            uri = display_uri(self._version.bucket, self._version.key)
            raise S3ProtocolError(f"the server refuses a range of {uri} that the object has")
        return received

    @property
    def description(self) -> str:
        """What it asks for next."""
        return self._request().description

    @property
    def received(self) -> Range:
        """What has come, once all has."""
        return cast(Range, self._range)

    def take_sums(self) -> Sums:
        """The checksums of what has come since the last call, up to the end of the last memory that is full."""
        taken, self._sum = self._sum, None
        return NOT_SUMMED if taken is None else taken.sums()

    def _call(self, caller: Caller, cancel: CancelToken | None, sent: Exchange | None = None) -> Range | None:
        return self._version.call(caller, self._request, self._receive, cancel, sent)

    def _request(self) -> Request:
        if self._range is None:
            return self._version.request(self._start, self._stop)
        return self._version.request(self._range.start + self._done, self._range.stop)

    def _allocate_all(self, actual: Range) -> None:
        """It is known now which bytes will come."""
        self._range = actual
        self._memory = self._view = self._allocate(actual)

    def _learn_size(self, found: Described) -> Range:
        self._version.hold_to(found.size, found.headers.get("etag"), found.headers.get(_VERSION_HEADER))
        return self._expected(found.size)

    def _receive(self, response: Response) -> Range | None:
        if response is not self._checked and not self._prepare(response):
            return None
        wanted = cast(Range, self._range)
        size = wanted.stop - wanted.start
        while self._done < size:
            while not self._view:
                self._memory = self._view = self._allocate(Range(wanted.start + self._done, wanted.stop))
            count = response.readinto(self._view)
            if not count:
                raise S3ProtocolError(f"the response ended after {self._done} of {size} bytes")
            self._done += count
            self._view = self._view[count:]
            if not self._view or self._done == size:
                self._finish_memory(wanted)
        # They keep their owner alive, in a cycle if it has this fetch: until the garbage collector finds that, 50 us a
        # small object.
        self._allocate, self._accept = _nowhere, None
        return wanted

    def _prepare(self, response: Response) -> bool:
        """Check the head of a response, and get memory for its body; False if it does not contain the object's size."""
        content = _content_of(response)
        if content is None or (self._start < 0 and self._has_beginning(response, content)):
            return False
        expected = self._check(response, content)
        self._learn_checksum(response, content)
        wanted = self._range
        if wanted is None:
            wanted = expected
            if self._accept is not None and wanted.start == content.start and self._take_whole(response, wanted):
                return True
            self._allocate_all(wanted)
        if wanted and wanted.start + self._done > content.start:  # nothing precedes an empty range, as at the end
            with no_fork:
                from s3torchconnector._transfer.reading._discard import discard  # here: few servers ignore ranges

            discard(response, wanted.start + self._done - content.start)
        self._checked = response
        return True

    def _has_beginning(self, response: Response, content: ContentRange) -> bool:
        """Whether the object's first bytes came instead of its last ones, as s3rver sends them."""
        is_partial = self._range is None and response.status == 206
        self._is_beginning = is_partial and content.start == 0 and content.size > -self._start
        return self._is_beginning

    def _finish_memory(self, wanted: Range) -> None:
        """The last memory is full, or all has come: sum it."""
        full, size = self._memory[: len(self._memory) - len(self._view)], wanted.stop - wanted.start
        # No view of the memory may be left when its owner is told that it is full.
        self._memory = self._view = _FULL
        if self._sum is None:
            self._sum = Sum(cast(ObjectIntegrity, self._version.integrity))
        self._sum.add(full)
        if self._done < size:
            return
        if len(full) < size or not self._is_all(wanted):
            return
        try:
            self._sum.check(wanted)  # at once, so that nobody has seen any of it
        except S3ChecksumError:
            # The next attempt receives it again.
            self._memory = self._view = full
            self._done, self._checked, self._sum = 0, None, None
            raise

    def _is_all(self, wanted: Range) -> bool:
        return wanted == (0, self._version.size)

    def _take_whole(self, response: Response, wanted: Range) -> bool:
        """Accept the body if it came with the head, and is what is wanted."""
        data = response.pop_whole() if response.length == wanted.stop - wanted.start else None
        if data is None or self._accept is None:
            return False
        assert self._version.integrity is not None
        if self._version.integrity.algorithms:
            received = Sum(self._version.integrity)
            received.add(data)
            if self._is_all(wanted):
                received.check(wanted)
            self._sum = received
        self._range, self._done = wanted, len(data)
        self._accept(wanted, data)
        return True

    def _check(self, response: Response, content: ContentRange) -> Range:
        """Compare the head of a response with the request and with the version. Returns which bytes are expected."""
        etag = response.headers.get("etag") if response.status != 416 else None
        start, stop, size = content
        expected, wrong = self._expected(size), ""
        # A server that ignores ranges sends everything; the bytes before the wanted ones are discarded.
        whole = response.status == 200 and stop - start == size
        if (start, stop) != expected and not whole and (stop > start or expected):
            wrong = f"the response has bytes {start} to {stop}, but {expected.start} to {expected.stop} were requested"
        length = response.length
        if length is not None and length != stop - start and response.status != 416:
            wrong = wrong or f"the response has {length} bytes, but its Content-Range says {stop - start}"
        if wrong:
            self._version.compare(size, etag)  # if it is another version, that says more
            raise S3ProtocolError(wrong)
        # Last: a wrong response must not be believed.
        self._version.hold_to(size, etag, response.headers.get(_VERSION_HEADER))
        return expected

    def _learn_checksum(self, response: Response, content: ContentRange) -> None:
        # The response with a range may tell the checksum of that range.
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
    """Which bytes of how many a response has; None if it refuses the range and does not tell the size."""
    header = response.headers.get("content-range")
    if header is not None:
        return parse_content_range(header)
    if response.status == 416:
        return None
    if response.status == 206:
        raise S3ProtocolError("the response is partial but has no Content-Range")
    check_not_decompressed(response.headers)
    if response.length is None:
        raise S3ProtocolError("the response tells neither the object's size nor its range")
    return ContentRange(0, response.length, response.length)
