"""The properties of an object without its bytes: by HEAD, or by reading a byte if HEAD is forbidden and GET is not.

S3 has one permission for both. Gateways, proxies and policies of other servers may distinguish HEAD. This is found out
once for each bucket, and costs one request for each object if neither is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from s3torchconnector._errors import S3AccessDeniedError, S3NotFoundError, S3ServiceError
from s3torchconnector._wire._cancel import CancelToken
from s3torchconnector._wire._operations import Request, get_first_byte
from s3torchconnector._wire._quirks import Quirk, Quirks
from s3torchconnector._wire._response import Response

_T = TypeVar("_T")
_FORBIDDEN_STATUS = (403, 405, 501)


class Described(NamedTuple):
    """The properties of an object in a response: headers by their names in lower case, and its size in bytes."""

    headers: Mapping[str, str]
    size: int


class _Calls(Protocol):
    """What of a ``Caller`` is used."""

    quirks: Quirks

    def call(
        self,
        request: Request | Callable[[], Request],
        consume: Callable[[Response], _T],
        cancel: CancelToken | None = None,
        sent: Any = None,
        limit: float = math.inf,
    ) -> _T: ...


def is_of_head(error: S3ServiceError) -> bool:
    """Whether HEAD may be what was refused: its response has no document that says why."""
    is_answer = isinstance(error, S3NotFoundError)  # a version that is a delete marker has status 405
    return error.code is None and error.status in _FORBIDDEN_STATUS and not is_answer


def describe(caller: _Calls, head: Request, cancel: CancelToken | None = None) -> Described:
    """Send ``head`` (``operations.head_object``), or ask for the object's first byte if HEAD is forbidden.

    Raises:
        S3Exception: see ``Caller.call``.
    """
    if caller.quirks.has(head.bucket, Quirk.NO_HEAD):
        return _by_get(caller, head, cancel)
    try:
        return caller.call(head, lambda response: Described(response.headers, response.length or 0), cancel)
    except S3ServiceError as error:
        if not is_of_head(error):
            raise
        refusal = error
    try:
        found = _by_get(caller, head, cancel)
    except S3AccessDeniedError:
        raise refusal from None  # neither is allowed
    except S3NotFoundError:
        caller.quirks.note(head.bucket, Quirk.NO_HEAD)
        raise
    caller.quirks.note(head.bucket, Quirk.NO_HEAD)
    return found


def _by_get(caller: _Calls, head: Request, cancel: CancelToken | None) -> Described:
    first = get_first_byte(head)
    found = caller.call(first, _described, cancel)
    if found is not None:
        return found
    # The object is empty, and has no first byte: all of it is asked for.
    headers = {name: value for name, value in first.headers.items() if name != "range"}
    whole = first._replace(headers=headers, also_good=())
    return caller.call(whole, lambda response: Described(response.headers, response.length or 0), cancel)


def _described(response: Response) -> Described | None:
    if response.status == 416:
        return None
    _, _, size = response.headers.get("content-range", "").partition("/")
    return Described(response.headers, int(size) if size.isdecimal() else response.length or 0)
