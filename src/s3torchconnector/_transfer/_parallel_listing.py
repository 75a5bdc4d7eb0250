"""All keys below a prefix, in order, many pages at a time; of directory buckets, one at a time in the order they have.

A page of S3's listing takes 50 to 100 ms and tells where the next one begins, so that a million keys take a minute
and more one after the other. ``Segments`` guesses where later pages begin (``start-after``), and goes on from there by
tokens; this module asks for them.
Which thread's page comes first does not matter: what is handed out is in key order, each key once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from queue import SimpleQueue

from s3torchconnector._transfer._progress import ListingProgress
from s3torchconnector._transfer._runtime import OpenRuntime
from s3torchconnector._transfer._segments import Ask, Segments
from s3torchconnector._types import ObjectInfos
from s3torchconnector._wire import CancelToken, ListPage, Response, parse_list_page, read_document, requests

_WIDTH = 24  # pages asked for at a time
_MOST_WAITING = 256  # pages (of 1,000 keys, about 300 KiB each) kept until earlier ones are there

_Answer = tuple[Ask, "ListPage | BaseException"]


def list_all(open_runtime: OpenRuntime, bucket: str, prefix: str) -> Iterator[ObjectInfos]:
    """The objects whose keys begin with ``prefix``, page by page, in key order (directory buckets: in theirs).

    Raises:
        S3Exception: an error occurred accessing S3.
    """
    runtime = open_runtime()  # which lasts as long as its client, whom ``open_runtime`` keeps
    width = min(_WIDTH, runtime.config.max_connections)
    in_order = runtime.caller.lists_in_order(requests.list_objects(bucket, prefix))
    segments = Segments(prefix, width, _MOST_WAITING, in_order=in_order)
    answers: SimpleQueue[_Answer] = SimpleQueue()
    lane = runtime.lane()
    cancel = CancelToken()

    def fetch(ask: Ask) -> None:
        try:
            request = requests.list_objects(bucket, prefix, token=ask.token, start_after=ask.start_after)
            answers.put((ask, runtime.caller.call(request, partial(_parse, ask), cancel)))
        except BaseException as error:
            answers.put((ask, error))

    try:
        with ListingProgress(bucket, prefix) as progress:
            while not segments.exhausted:
                for ask in segments.next_asks():
                    lane.submit(partial(fetch, ask))
                ask, page = answers.get()
                if isinstance(page, BaseException):
                    raise page
                segments.take(ask.segment, page.objects, page.next_token)
                for objects in segments.ready():
                    progress.advance(len(objects))
                    yield objects
    finally:
        cancel.cancel()


def _parse(ask: Ask, response: Response) -> ListPage:
    page = parse_list_page(read_document(response), ask.segment.high)
    ask.check(page.objects, page.next_token)
    return page
