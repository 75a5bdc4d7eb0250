"""All keys below a prefix, in key order, with many pages on their way at a time.

S3 takes 50 to 100 ms for a page and only then tells where the next one begins. Page by page, a million keys take more
than a minute. ``Segments`` guesses keys at which later pages may begin (``start-after``), and continues from there by
tokens; this module sends the requests. Pages may arrive in any order; each key is returned once and in order. Directory
buckets have no order of keys, so they are listed page by page, in the server's order.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from functools import partial
from queue import SimpleQueue

from s3torchconnector._listing_results import ObjectInfos
from s3torchconnector._process import process_id
from s3torchconnector._progress import Progress
from s3torchconnector._transfer.engine._runtime import OpenRuntime, Runtime
from s3torchconnector._transfer.listing._listing import listed_prefix
from s3torchconnector._transfer.listing._segments import PageRequest, Segments
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import CancelToken, ListPage, Response, operations, parse_list_page, read_document

_log = logging.getLogger(__name__)
_WIDTH = 24  # pages requested at a time
_SHOWN_AFTER = 2.0  # seconds; few wait for a listing with nothing to see
_MOST_WAITING = 256  # pages (of 1,000 keys, about 300 KiB each) kept until the earlier ones have come

_Result = tuple[PageRequest, "ListPage | BaseException"]


def list_all(
    open_runtime: OpenRuntime, bucket: str, prefix: str, *, restore_status: bool = False, after: str = ""
) -> Iterator[ObjectInfos]:
    """The objects whose keys begin with ``prefix``, page by page, in key order (directory buckets: in theirs).

    If a child process inherits the iterator by a fork, it continues in both. With ``restore_status``, it tells which
    archived objects are restored. With ``after``, it begins after that key, unless the server ignores ``start-after``.

    Raises:
        S3Exception: an error occurred accessing S3.
    """
    runtime = open_runtime()  # it lasts as long as its client, which ``open_runtime`` keeps
    width = min(_WIDTH, runtime.config.max_connections)
    has_order = runtime.caller.lists_in_order(operations.list_objects(bucket, prefix))
    restore_status = restore_status and has_order  # directory buckets have no archives, and no such header
    in_order = has_order and bucket not in runtime.disordered_buckets
    segments = Segments(prefix, width, _MOST_WAITING, in_order=in_order, after=after)
    in_flight = partial(_InFlight, bucket=bucket, prefix=prefix, restore_status=restore_status)
    under_way = in_flight(runtime)
    description = f"listing {display_uri(bucket, prefix)}"
    try:
        with Progress(runtime.config.progress, description, "keys", shown_after=_SHOWN_AFTER) as progress:
            while not segments.exhausted:
                if under_way.is_parents:
                    under_way = in_flight(open_runtime())
                    segments.forget_requests()
                for request in segments.next_requests():
                    under_way.fetch(request)
                request, page = under_way.next_page()
                segments.add_page(request, page)
                for objects in segments.ready():
                    progress.advance(len(objects))
                    yield objects
                if segments.has_restarted():
                    under_way.cancel()
                    under_way = in_flight(open_runtime())
                    _note_disorder(segments, open_runtime(), bucket)
    finally:
        under_way.cancel()


class _InFlight:
    """The pages that one process has requested. A forked child has none of the threads that would bring them."""

    _process_id = staticmethod(process_id)

    def __init__(self, runtime: Runtime, bucket: str, prefix: str, restore_status: bool) -> None:
        self._caller = runtime.caller
        self._lane = runtime.lane()
        self._bucket = bucket
        self._prefix = prefix
        self._restore_status = restore_status
        self._listed = listed_prefix(runtime.caller, bucket, prefix)
        self._results: SimpleQueue[_Result] = SimpleQueue()
        self._cancel = CancelToken()
        self._pid = os.getpid()

    @property
    def is_parents(self) -> bool:
        """Whether this is a forked child of the process that requested them."""
        return self._pid != os.getpid()

    def fetch(self, request: PageRequest) -> None:
        """Request a page."""
        self._lane.submit(partial(self._list, request))

    def next_page(self) -> tuple[PageRequest, ListPage]:
        """The next page that arrives, in any order.

        Raises:
            S3Exception: the request for it failed.
        """
        request, page = self._results.get()
        if isinstance(page, BaseException):
            raise page
        return request, page

    def cancel(self) -> None:
        """Stop the requests under way, unless they are the parent's."""
        if self._pid == self._process_id():
            self._cancel.cancel()

    def _list(self, request: PageRequest) -> None:
        try:
            token, start_after = request.token, request.start_after
            call = operations.list_objects(
                self._bucket,
                self._listed,
                token=token,
                start_after=start_after,
                restore_status=self._restore_status,
            )
            page = self._caller.call(call, partial(_parse, request), self._cancel)
            self._results.put((request, page if self._listed == self._prefix else page.beginning_with(self._prefix)))
        except BaseException as error:
            self._results.put((request, error))


def _parse(request: PageRequest, response: Response) -> ListPage:
    page = parse_list_page(read_document(response), request.segment.high)
    request.check(page.next_token)
    return page


def _note_disorder(segments: Segments, runtime: Runtime, bucket: str) -> None:
    """Remember a bucket that is not listed in the order of keys, so that later listings need not find out."""
    if segments.disordered and bucket not in runtime.disordered_buckets:
        runtime.disordered_buckets.add(bucket)
        _log.warning(
            "%s is not listed in the order of keys' UTF-8 bytes, as S3 does, or its server ignores start-after: it is "
            "listed one page after the other, which takes longer",
            display_uri(bucket),
        )
