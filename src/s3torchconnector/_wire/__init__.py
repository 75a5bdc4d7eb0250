"""The wire: S3 over HTTP/1.1 on blocking sockets. The layers above use ``Caller.call``."""

from typing import TYPE_CHECKING

from s3torchconnector._late_imports import names_from
from s3torchconnector._wire import _operations as operations
from s3torchconnector._wire._caller import Caller
from s3torchconnector._wire._cancel import CancelledByCaller, CancelToken
from s3torchconnector._wire._checksum_support import ChecksumSupport
from s3torchconnector._wire._checksums import (
    ALGORITHM_HEADER,
    ALGORITHMS,
    TYPE_HEADER,
    Algorithm,
    algorithm_of,
    import_for_workers,
    md5_of,
    offered,
    why_none,
)
from s3torchconnector._wire._connection import Buffer, NotYet, WouldBlock
from s3torchconnector._wire._counts import counts
from s3torchconnector._wire._descriptors import open_descriptors
from s3torchconnector._wire._dialer import NoIdleConnection
from s3torchconnector._wire._documents import parse_http_date
from s3torchconnector._wire._exchange import Exchange
from s3torchconnector._wire._figures import Figures, process_metrics
from s3torchconnector._wire._hedging import Hedging
from s3torchconnector._wire._operations import Request
from s3torchconnector._wire._polling import POLLIN, new_poll, new_wakeup
from s3torchconnector._wire._pool import ConnectionPool, PoolIsFull
from s3torchconnector._wire._quirks import Quirk
from s3torchconnector._wire._response import Response, check_not_decompressed, read_document
from s3torchconnector._wire._retry import is_retryable
from s3torchconnector._wire._service_errors import demands_equal_parts, is_too_large_to_copy, refuse_late_error

if TYPE_CHECKING:
    from s3torchconnector._wire._continuation import Continuation
    from s3torchconnector._wire._deletions import can_be_named, delete_document, parse_deleted
    from s3torchconnector._wire._describe import Described, describe, is_of_head
    from s3torchconnector._wire._list_page import ListPage, parse_list_page
    from s3torchconnector._wire._trace import TracedRequest, tracing
    from s3torchconnector._wire._upload_documents import (
        CompletedPart,
        UploadsPage,
        parse_copied_part,
        parse_tags,
        parse_upload_id,
        parse_uploads_page,
    )

__all__ = [
    "ALGORITHMS",
    "ALGORITHM_HEADER",
    "POLLIN",
    "TYPE_HEADER",
    "Algorithm",
    "Buffer",
    "Caller",
    "CancelToken",
    "CancelledByCaller",
    "ChecksumSupport",
    "CompletedPart",
    "ConnectionPool",
    "Continuation",
    "Described",
    "Exchange",
    "Figures",
    "Hedging",
    "ListPage",
    "NoIdleConnection",
    "NotYet",
    "PoolIsFull",
    "Quirk",
    "Request",
    "Response",
    "TracedRequest",
    "UploadsPage",
    "WouldBlock",
    "algorithm_of",
    "can_be_named",
    "check_not_decompressed",
    "counts",
    "delete_document",
    "demands_equal_parts",
    "describe",
    "import_for_workers",
    "is_of_head",
    "is_retryable",
    "is_too_large_to_copy",
    "md5_of",
    "new_poll",
    "new_wakeup",
    "offered",
    "open_descriptors",
    "operations",
    "parse_copied_part",
    "parse_deleted",
    "parse_http_date",
    "parse_list_page",
    "parse_tags",
    "parse_upload_id",
    "parse_uploads_page",
    "process_metrics",
    "read_document",
    "refuse_late_error",
    "tracing",
    "why_none",
]

__getattr__ = names_from(
    __name__,
    {
        "CompletedPart": "_upload_documents",
        "Continuation": "_continuation",
        "Described": "_describe",
        "ListPage": "_list_page",
        "TracedRequest": "_trace",
        "UploadsPage": "_upload_documents",
        "can_be_named": "_deletions",
        "delete_document": "_deletions",
        "describe": "_describe",
        "is_of_head": "_describe",
        "parse_copied_part": "_upload_documents",
        "parse_deleted": "_deletions",
        "parse_list_page": "_list_page",
        "parse_tags": "_upload_documents",
        "parse_upload_id": "_upload_documents",
        "parse_uploads_page": "_upload_documents",
        "tracing": "_trace",
    },
)
