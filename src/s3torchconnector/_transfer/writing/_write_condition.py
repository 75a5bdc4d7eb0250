"""What an object must find at its key to appear there: anything, nothing, or one version.

A write that must find nothing sends ``If-None-Match: *`` with the one request that makes the object appear, and one
that replaces a version sends that version's ETag as ``If-Match``. So one of many writers succeeds.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
Three looks at the key cover the remaining cases:

- *Before the first byte*: if there is an object, the error is raised when the writer is opened, as from
  ``open(path, "x")``, and not after hours of computing. On servers that ignore the header (rclone), this is the only
  check, and it is not atomic.
- *After a refusal*: the request may have been carried out and its response lost. Then the retry is refused because of
  our own object. Its metadata has a mark that no other write has. An ETag would not be enough, because two writers may
  store the same bytes. If a multipart upload is gone when it is to be completed (``Completion``), that is such a
  refusal too.
- *Immediately before a completion*, on Ceph's and Swift's gateways: they respect the header of PutObject, and ignore
  that of CompleteMultipartUpload. If several writers complete within milliseconds, more than one may succeed there.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

from s3torchconnector._errors import (
    S3AccessDeniedError,
    S3Exception,
    S3NotFoundError,
    S3ObjectChangedError,
    S3ObjectExistsError,
    S3ServiceError,
)
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import (
    Caller,
    CancelledByCaller,
    CancelToken,
    Request,
    Response,
    describe,
    is_retryable,
    offered,
    operations,
)
from s3torchconnector._write_options import MARK

_log = logging.getLogger(__name__)
_MARK = f"x-amz-meta-{MARK}"
_T = TypeVar("_T")


class Calls(Protocol):
    """A ``Caller``, or something that sends requests with one."""

    def call(self, request: Request, consume: Callable[[Response], _T], cancel: CancelToken | None = None, /) -> _T: ...


class Overwrite:
    """The object appears, even if another one exists.

    Attributes:
        marks: whether the object has a mark, which alone tells whose it is.
    """

    marks = False

    def marked(self, request: Request) -> Request:
        """``request``, which carries the object's metadata, with the mark."""
        return request

    def send(
        self,
        caller: Calls,
        request: Request,
        consume: Callable[[Request, Response], _T],
        cancel: CancelToken | None = None,
    ) -> _T | None:
        """Send the request that makes the object appear; return what ``consume`` makes of the response."""
        return caller.call(request, partial(consume, request), cancel)

    def look(self, caller: Caller, bucket: str, key: str) -> None:
        """Look whether the condition holds now, for a server that may ignore it.

        Raises:
            S3ObjectExistsError: it does not.
        """

    def recognises(self, request: Request, headers: Mapping[str, str]) -> bool:
        """Whether an object with these headers is what ``request`` stored; False if they do not tell."""
        return False


class Conditional(Overwrite):
    """The object appears only if the server finds the key as expected.

    Args:
        header, value: the condition, as it goes with the request that makes the object appear.
        needed: whether a server that refuses all such conditions (501) stores nothing.

    Attributes:
        etag: of what was stored; None before that, and if the server did not tell.
    """

    marks = True

    def __init__(self, header: str, value: str, *, needed: bool) -> None:
        self._condition = {header: value}
        self._needed = needed
        self._token = uuid.uuid4().hex
        self.etag: str | None = None

    def marked(self, request: Request) -> Request:
        return request._replace(headers={**request.headers, _MARK: self._token})

    def send(
        self,
        caller: Calls,
        request: Request,
        consume: Callable[[Request, Response], _T],
        cancel: CancelToken | None = None,
    ) -> _T | None:
        """As ``Overwrite.send``; None if an attempt stored the object whose response was lost.

        Raises:
            S3ObjectExistsError, S3ObjectChangedError: another writer's object exists, or the object was deleted.
        """
        guarded = request._replace(headers={**request.headers, **self._condition})
        try:
            result = caller.call(guarded, partial(consume, guarded), cancel)
        except (S3ObjectExistsError, S3ObjectChangedError) as error:
            if not self._is_ours(caller, request, error):
                raise
            _log.info("%s was stored by an attempt whose response was lost", display_uri(request.bucket, request.key))
            return None
        except S3NotFoundError as error:
            if error.code != "NoSuchKey" or "if-match" not in self._condition:
                raise
            raise self._refusal(request, error) from error  # what was to be replaced was deleted
        except S3ServiceError as error:
            if self._needed or error.status != 501:
                raise
            _log.warning("%s is stored without a condition, which this server refuses: %s", request, error)
            result = caller.call(request, partial(consume, request), cancel)
        self.etag = result if isinstance(result, str) else None
        return result

    def recognises(self, request: Request, headers: Mapping[str, str]) -> bool:
        """As ``Overwrite.recognises``; False if the key is still as it was expected to be.

        Raises:
            S3ObjectExistsError, S3ObjectChangedError: the object is another writer's.
        """
        if not self.wrote(headers):
            expected = self._condition.get("if-match")
            if expected is not None and headers.get("etag") == expected:
                return False
            raise self._refusal(request)
        self.etag = headers.get("etag")
        return True

    def wrote(self, headers: Mapping[str, str]) -> bool:
        """Whether this write stored the object that has these headers."""
        return headers.get(_MARK) == self._token or (self.etag is not None and headers.get("etag") == self.etag)

    def _refusal(self, request: Request, error: S3Exception | None = None) -> S3ServiceError:
        raise NotImplementedError

    def _is_ours(self, caller: Calls, request: Request, refusal: S3Exception) -> bool:
        headers = stored_headers(caller, request, refusal)
        if headers is not None and self.wrote(headers):
            self.etag = headers.get("etag")
            return True
        return False


class CreateOnly(Conditional):
    """The object appears only if there is none."""

    def __init__(self, *, needed: bool = True) -> None:
        super().__init__("if-none-match", "*", needed=needed)

    def look(self, caller: Caller, bucket: str, key: str) -> None:
        """Look whether there is an object, also before anything is written.

        Raises:
            S3ObjectExistsError: there is an object.
        """
        try:
            describe(caller, operations.head_object(bucket, key))
        except S3NotFoundError:
            return
        except S3AccessDeniedError:
            return  # a program that may only write cannot look; S3 decides when the object is stored
        raise _exists("HeadObject", bucket, key)

    def _refusal(self, request: Request, error: S3Exception | None = None) -> S3ServiceError:
        return _exists(request.operation, request.bucket, request.key)


class ReplaceVersion(Conditional):
    """The object appears only in place of the version with this ETag."""

    def __init__(self, etag: str) -> None:
        super().__init__("if-match", etag, needed=False)

    def _refusal(self, request: Request, error: S3Exception | None = None) -> S3ServiceError:
        uri = display_uri(request.bucket, request.key)
        facts: dict[str, Any] = {"operation": request.operation, "bucket": request.bucket, "key": request.key}
        if error is not None:
            facts |= {"status": error.status, "code": error.code, "attempts": error.attempts, "resent": error.resent}
        done = "deleted" if error is not None else "replaced by another writer"
        return S3ObjectChangedError(f"{uri} was {done} before this write could replace it", **facts)


def stored_headers(
    caller: Calls, request: Request, error: S3Exception, cancel: CancelToken | None = None
) -> Mapping[str, str] | None:
    """The headers of what is stored now at the key of ``request``, which should have stored it and failed by ``error``.

    None if nothing is stored, or if that cannot be told: then the message of ``error`` says so.
    """
    head = operations.head_object(request.bucket, request.key, checksum=bool(offered(request.headers)))
    try:
        return caller.call(head, lambda response: response.headers, cancel)
    except S3NotFoundError:
        if may_be_stored(error):
            error.message += ". A look at the key found no object afterwards"
        return None
    except CancelledByCaller:
        raise
    except S3Exception as failure:
        if may_be_stored(error):
            error.message += f". Whether the object was stored nevertheless could not be looked up ({failure})"
        return None


def may_be_stored(error: S3Exception) -> bool:
    """Whether a request that ended with ``error`` may have been carried out, by an attempt whose response was lost."""
    return is_retryable(error) or error.resent or (error.attempts or 0) > 1


def _exists(operation: str, bucket: str, key: str) -> S3ObjectExistsError:
    facts = {"operation": operation, "bucket": bucket, "key": key}
    return S3ObjectExistsError(f"{display_uri(bucket, key)} exists, and overwrite=False does not replace it", **facts)
