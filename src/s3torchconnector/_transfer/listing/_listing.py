"""Listings page by page, for programs that ask for a page at a time.

Of a listing of objects, the next page is already on its way while the program uses one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from s3torchconnector._errors import S3NotFoundError, S3ProtocolError
from s3torchconnector._listing_results import ListObjectResult, UploadInfo
from s3torchconnector._transfer.engine._runtime import OpenRuntime
from s3torchconnector._wire import (
    Caller,
    Continuation,
    ListPage,
    Response,
    UploadsPage,
    operations,
    parse_list_page,
    parse_uploads_page,
    read_document,
)


class ListObjectStream(Iterator[ListObjectResult]):
    """The pages of a listing, in key order. Picklable: a copy continues after the last page that was returned.

    Attributes:
        bucket, prefix, delimiter, max_keys: as they were given; ``max_keys`` is the most keys on a page.
        continuation_token: S3's token for the next page; None at the beginning and at the end.
        complete: whether the last page has been returned.
    """

    def __init__(
        self, open_runtime: OpenRuntime, bucket: str, prefix: str = "", delimiter: str = "", max_keys: int = 1000
    ) -> None:
        self._open_runtime = open_runtime
        self.bucket = bucket
        self.prefix = prefix
        self.delimiter = delimiter
        self.max_keys = max_keys
        self.continuation_token: str | None = None
        self.complete = False
        self._continuation = Continuation()
        self._next: tuple[int, Future[ListPage]] | None = None  # with the process that requested it

    def __next__(self) -> ListObjectResult:
        """The next page.

        Raises:
            S3Exception: an error occurred accessing S3; the next call continues at the same page.
            S3ProtocolError: the server repeats pages, so that the listing would not end.
        """
        if self.complete:
            raise StopIteration
        pending, self._next = self._next, None
        if pending is not None and pending[0] == os.getpid():
            page = pending[1].result()
        else:
            page = self._fetch(self.continuation_token)
        self._continuation.advance(page.next_token)
        self.continuation_token = page.next_token
        self.complete = page.next_token is None
        if not self.complete:
            token = page.next_token
            future = self._open_runtime().lane().submit(lambda: self._fetch(token))
            self._next = (os.getpid(), future)
        return ListObjectResult(list(page.objects), page.common_prefixes)

    def _fetch(self, token: str | None) -> ListPage:
        caller = self._open_runtime().caller
        prefix = listed_prefix(caller, self.bucket, self.prefix)
        request = operations.list_objects(self.bucket, prefix, self.delimiter, max_keys=self.max_keys, token=token)
        return caller.call(request, self._parse)

    def _parse(self, response: Response) -> ListPage:
        page = parse_list_page(read_document(response))
        self._continuation.check(page.next_token)  # here, since a wrong response is requested again
        return page.beginning_with(self.prefix)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_next": None}


def is_listed_in_order(open_runtime: OpenRuntime, bucket: str) -> bool:
    """Whether every listing of a bucket has the order of its keys. Listings of directory buckets have no
    fixed order.
    """
    return open_runtime().caller.lists_in_order(operations.list_objects(bucket))


def listed_prefix(caller: Caller, bucket: str, prefix: str) -> str:
    """What to list to find the keys that begin with ``prefix``, among others.

    Directory buckets take only prefixes that end in a slash, so that their "folder" has to be listed.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/s3-express-differences.html
    """
    if not prefix or prefix.endswith("/") or caller.lists_in_order(operations.list_objects(bucket, prefix)):
        return prefix
    return prefix[: prefix.rfind("/") + 1]


def list_uploads(open_runtime: OpenRuntime, bucket: str, prefix: str) -> Iterator[UploadInfo]:
    """The multipart uploads to keys with this prefix that have begun and not ended, in key order.

    Raises:
        S3Exception: an error occurred accessing S3.
    """
    marker, continuation, encoded = None, Continuation(), False
    listed = listed_prefix(open_runtime().caller, bucket, prefix)

    def parse(response: Response) -> UploadsPage:
        page = parse_uploads_page(read_document(response))
        continuation.check(page.next_marker)
        return page

    while True:
        request = operations.list_multipart_uploads(bucket, listed, marker, encoded=encoded)
        try:
            page = open_runtime().caller.call(request, parse)
        except S3ProtocolError:
            if encoded:
                raise
            encoded = True  # a key has characters that XML cannot hold
            continue
        except S3NotFoundError as error:
            if error.code == "NoSuchUpload":  # rclone says that of a bucket that never had one
                return
            raise
        yield from (upload for upload in page.uploads if upload.key.startswith(prefix))
        marker = page.next_marker
        if marker is None:
            return
        continuation.advance(marker)
