"""Deletes many objects: up to 1,000 by one request, or one by one where the server knows no such request.

A server that refuses the request is remembered, if the objects can then be deleted one by one. What its response does
not mention is deleted alone as well, and so are the few keys that XML cannot carry.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future
from functools import partial

from s3torchconnector._errors import S3Exception, S3ProtocolError
from s3torchconnector._plural import counted
from s3torchconnector._transfer.engine._runtime import Runtime
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import (
    Caller,
    Quirk,
    Request,
    Response,
    can_be_named,
    delete_document,
    is_retryable,
    operations,
    parse_deleted,
    read_document,
)

MOST_TOGETHER = 1000  # keys of one request
_MOST_BYTES = 1024 * 1024  # of these keys
_AT_ONCE = 4  # requests with so many keys: Amazon S3 deletes about 3,500 objects a second below a prefix
# How servers refuse requests that they do not know, and what such statuses mean as well.
_REFUSALS = (400, 403, 404, 405, 411, 413, 415, 501)
_OTHER_REASONS = ("NoSuchBucket", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")


def delete_objects(runtime: Runtime, bucket: str, keys: Iterable[str]) -> dict[str, S3Exception]:
    """Delete objects. Return why some of them were not deleted, by their keys."""
    return _Deletions(runtime, bucket).carry_out(keys)


def check_deleted(bucket: str, errors: dict[str, S3Exception]) -> None:
    """Check what ``delete_objects`` returned.

    Raises:
        S3Exception: not all objects were deleted. It is the error of the first, and tells how many more there are.
    """
    for key, error in errors.items():
        if len(errors) > 1 or error.key is None:
            more = f" and {counted(len(errors) - 1, 'more object')}" if len(errors) > 1 else ""
            error.message += f". Not deleted: {display_uri(bucket, key)}{more}"
        raise error


class _Deletions:
    def __init__(self, runtime: Runtime, bucket: str) -> None:
        self._caller = runtime.caller
        self._lane = runtime.lane()
        self._bucket = bucket
        self._errors: dict[str, S3Exception] = {}

    def carry_out(self, keys: Iterable[str]) -> dict[str, S3Exception]:
        under_way: deque[tuple[_Batch, Future[None]]] = deque()
        most = 1  # until the server is known to take such requests
        for batch in _batches(keys):
            if len(batch) == 1 or self._caller.quirks.has(self._bucket, Quirk.NO_DELETE_OBJECTS):
                self._delete_each(batch)
                continue
            if len(under_way) >= most:
                self._finish(*under_way.popleft())
                most = _AT_ONCE
            sent = _Batch(self._caller, self._bucket, batch)
            under_way.append((sent, self._lane.submit(sent.send)))
        while under_way:
            self._finish(*under_way.popleft())
        return self._errors

    def _finish(self, batch: _Batch, sent: Future[None]) -> None:
        """Wait for a request, and see to what it left."""
        try:
            sent.result()
        except S3Exception as error:
            if not _may_be_unknown(error):
                self._errors |= {**batch.errors, **dict.fromkeys(batch.left, error)}
                return
        self._errors |= batch.errors
        some_alone = self._delete_each(batch.left)
        if some_alone and not batch.is_answered:
            self._caller.quirks.note(self._bucket, Quirk.NO_DELETE_OBJECTS)

    def _delete_each(self, keys: Collection[str]) -> bool:
        """Delete objects by a request for each. Return whether that succeeded for some."""
        requests = {key: operations.delete_object(self._bucket, key) for key in keys}
        call = self._caller.call
        sent = {key: self._lane.submit(partial(call, request, read_document)) for key, request in requests.items()}
        for key, deleted in sent.items():
            try:
                deleted.result()
            except S3Exception as error:
                self._errors[key] = error
        return any(key not in self._errors for key in keys)


class _Batch:
    """The objects of one request.

    Attributes:
        left: the keys of objects of which nothing is known.
        errors: why others were not deleted.
        is_answered: whether a response has mentioned any of them.
    """

    def __init__(self, caller: Caller, bucket: str, keys: Iterable[str]) -> None:
        self.left = dict.fromkeys(keys)
        self.errors: dict[str, S3Exception] = {}
        self.is_answered = False
        self._caller = caller
        self._bucket = bucket

    def send(self) -> None:
        """Send the request; again, with what is left, as long as another attempt may help.

        Raises:
            S3Exception: nothing is known of what is left.
        """
        self._caller.call(self._request, self._receive)

    def _request(self) -> Request:
        return operations.delete_objects(self._bucket, delete_document(self.left))

    def _receive(self, response: Response) -> None:
        deleted = parse_deleted(self._bucket, response)
        again = None
        for key in self.left.keys() & (deleted.keys | deleted.errors.keys()):
            self.is_answered = True
            error = deleted.errors.get(key)
            if error is not None and is_retryable(error):
                again = error
                continue
            del self.left[key]
            if error is not None:
                self.errors[key] = error
        if again is not None:
            raise again


def _batches(keys: Iterable[str]) -> Iterator[list[str]]:
    """What is deleted together."""
    batch: list[str] = []
    size = 0
    for key in keys:
        if not can_be_named(key):
            yield [key]
            continue
        size += 4 * len(key)  # at most
        if len(batch) == MOST_TOGETHER or size > _MOST_BYTES:
            yield batch
            batch, size = [], 4 * len(key)
        batch.append(key)
    if batch:
        yield batch


def _may_be_unknown(error: S3Exception) -> bool:
    """Whether the server may have refused a request because it does not know its kind."""
    return isinstance(error, S3ProtocolError) or (error.status in _REFUSALS and error.code not in _OTHER_REASONS)
