"""How an upload takes its key: it replaces what is there, or must find nothing.

A write that must find nothing sends ``If-None-Match: *`` with the one request that makes the object appear, so that of
many writers one succeeds. https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
Two looks make up for what this leaves open:

- *Before the first byte*: a key that is taken fails where the writer is opened, as ``open(path, "x")`` does, and not
  after hours of computing. On servers that ignore the header (rclone) this look is all there is, and not atomic.
- *After a refusal*: the request may have been carried out and its answer lost, and then what is in the way of the
  retry is our own object. Its metadata has a mark that no other write has; its ETag would not tell, since two writers
  may store the same bytes. A multipart upload that is gone when it is to be completed (``Completion``) is such a
  refusal, too.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol, TypeVar

from s3torchconnector._errors import S3AccessDeniedError, S3Exception, S3NotFoundError, S3ObjectExistsError
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import Caller, CancelToken, Request, Response, requests

_log = logging.getLogger(__name__)
_MARK = "x-amz-meta-s3torchconnector-write"
_T = TypeVar("_T")


class Calls(Protocol):
    """A ``Caller``, or something that does more with one."""

    def call(self, request: Request, consume: Callable[[Response], _T], cancel: CancelToken | None = None, /) -> _T: ...


class Replacing:
    """The object appears whatever was there."""

    def marked(self, request: Request) -> Request:
        """``request``, which says what the object will be made of."""
        return request

    def publish(
        self,
        caller: Calls,
        request: Request,
        consume: Callable[[Request, Response], _T],
        cancel: CancelToken | None = None,
    ) -> _T | None:
        """Make the object appear; returns what ``consume`` makes of the answer."""
        return caller.call(request, partial(consume, request), cancel)

    def recognises(self, request: Request, headers: Mapping[str, str]) -> bool:
        """Whether an object with these headers is what ``request`` made appear; False where they do not tell."""
        return False


class CreateOnly(Replacing):
    """The object appears only where there is none."""

    def __init__(self) -> None:
        self._token = uuid.uuid4().hex

    def refuse_existing(self, caller: Caller, bucket: str, key: str) -> None:
        """Look before anything is written.

        Raises:
            S3ObjectExistsError: there is an object.
        """
        try:
            caller.call(requests.head_object(bucket, key), lambda response: None)
        except S3NotFoundError:
            return
        except S3AccessDeniedError:
            return  # who may only write is not told; S3 decides when the object is to appear
        raise _exists("HeadObject", bucket, key)

    def marked(self, request: Request) -> Request:
        return request._replace(headers={**request.headers, _MARK: self._token})

    def publish(
        self,
        caller: Calls,
        request: Request,
        consume: Callable[[Request, Response], _T],
        cancel: CancelToken | None = None,
    ) -> _T | None:
        """Make the object appear; None where an attempt did whose answer got lost.

        Raises:
            S3ObjectExistsError: another writer's object is there.
        """
        guarded = request._replace(headers={**request.headers, "if-none-match": "*"})
        try:
            return caller.call(guarded, partial(consume, guarded), cancel)
        except S3ObjectExistsError:
            if not self._is_ours(caller, request):
                raise
        _log.info("%s was stored by an attempt whose answer got lost", display_uri(request.bucket, request.key))
        return None

    def recognises(self, request: Request, headers: Mapping[str, str]) -> bool:
        """True.

        Raises:
            S3ObjectExistsError: it is another writer's.
        """
        if headers.get(_MARK) != self._token:
            raise _exists(request.operation, request.bucket, request.key)
        return True

    def _is_ours(self, caller: Calls, request: Request) -> bool:
        try:
            headers = caller.call(requests.head_object(request.bucket, request.key), lambda response: response.headers)
            return self.recognises(request, headers)
        except S3Exception:
            return False


def _exists(operation: str, bucket: str, key: str) -> S3ObjectExistsError:
    facts = {"operation": operation, "bucket": bucket, "key": key}
    return S3ObjectExistsError(f"{display_uri(bucket, key)} exists, and was not to be overwritten", **facts)
