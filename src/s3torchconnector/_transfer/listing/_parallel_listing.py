"""All keys below a prefix, in order, many pages at a time; of directory buckets, one at a time in the order they have.

A page of S3's listing takes 50 to 100 ms and tells where the next one begins, so that a million keys take a minute
and more one after the other. ``Segments`` guesses where later pages begin (``start-after``), and goes on from there by
tokens; this module asks for them.
Which thread's page comes first does not matter: what is handed out is in key order, each key once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from functools import partial
from queue import SimpleQueue

from s3torchconnector._transfer.engine._runtime import OpenRuntime, Runtime
from s3torchconnector._transfer.listing._progress import ListingProgress
from s3torchconnector._transfer.listing._segments import PageRequest, Segments
from s3torchconnector._types import ObjectInfos
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import CancelToken, ListPage, Response, operations, parse_list_page, read_document

_log = logging.getLogger(__name__)
_WIDTH = 24  # pages asked for at a time
_MOST_WAITING = 256  # pages (of 1,000 keys, about 300 KiB each) kept until earlier ones are there

_Answer = tuple[PageRequest, "ListPage | BaseException"]


def list_all(open_runtime: OpenRuntime, bucket: str, prefix: str) -> Iterator[ObjectInfos]:
    """The objects whose keys begin with ``prefix``, page by page, in key order (directory buckets: in theirs).

    An iterator that a forked child inherits goes on there, and in the parent too.

    Raises:
        S3Exception: an error occurred accessing S3.
    """
    runtime = open_runtime()  # which lasts as long as its client, whom ``open_runtime`` keeps
    width = min(_WIDTH, runtime.config.max_connections)
    in_order = runtime.caller.lists_in_order(operations.list_objects(bucket, prefix))
    in_order = in_order and bucket not in runtime.disordered_buckets
    segments = Segments(prefix, width, _MOST_WAITING, in_order=in_order)
    under_way = _InFlight(runtime, bucket, prefix)
    try:
        with ListingProgress(bucket, prefix) as progress:
            while not segments.exhausted:
                if under_way.is_parents:
                    under_way = _InFlight(open_runtime(), bucket, prefix)
                    segments.forget_asked()
                for ask in segments.next_asks():
                    under_way.begin(ask)
                ask, page = under_way.next()
                segments.take(ask, page)
                for objects in segments.ready():
                    progress.advance(len(objects))
                    yield objects
                if segments.has_restarted():
                    under_way.give_up()
                    under_way = _InFlight(open_runtime(), bucket, prefix)
                    _note_disorder(segments, open_runtime(), bucket)
    finally:
        under_way.give_up()


class _InFlight:
    """The pages that one process has asked for: a forked child has none of the threads that would bring them."""

    def __init__(self, runtime: Runtime, bucket: str, prefix: str) -> None:
        self._caller = runtime.caller
        self._lane = runtime.lane()
        self._bucket = bucket
        self._prefix = prefix
        self._answers: SimpleQueue[_Answer] = SimpleQueue()
        self._cancel = CancelToken()
        self._pid = os.getpid()

    @property
    def is_parents(self) -> bool:
        """Whether this is a forked child of the process that asked."""
        return self._pid != os.getpid()

    def begin(self, ask: PageRequest) -> None:
        """Ask for a page."""
        self._lane.submit(partial(self._fetch, ask))

    def next(self) -> tuple[PageRequest, ListPage]:
        """The page that comes next, in whatever order.

        Raises:
            S3Exception: it could not be had.
        """
        ask, page = self._answers.get()
        if isinstance(page, BaseException):
            raise page
        return ask, page

    def give_up(self) -> None:
        """Stop what is under way, unless it is the parent's."""
        if not self.is_parents:
            self._cancel.cancel()

    def _fetch(self, ask: PageRequest) -> None:
        try:
            request = operations.list_objects(self._bucket, self._prefix, token=ask.token, start_after=ask.start_after)
            self._answers.put((ask, self._caller.call(request, partial(_parse, ask), self._cancel)))
        except BaseException as error:
            self._answers.put((ask, error))


def _parse(ask: PageRequest, response: Response) -> ListPage:
    page = parse_list_page(read_document(response), ask.segment.high)
    ask.check(page.next_token)
    return page


def _note_disorder(segments: Segments, runtime: Runtime, bucket: str) -> None:
    """Remember it, if a bucket is not listed in the order of keys: later listings need not find out."""
    if segments.disordered and bucket not in runtime.disordered_buckets:
        runtime.disordered_buckets.add(bucket)
        _log.warning(
            "%s is not listed in the order of keys' UTF-8 bytes, as S3 does, or its server ignores start-after: it is "
            "listed one page after the other, which takes longer",
            display_uri(bucket),
        )
