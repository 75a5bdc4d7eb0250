"""Transfers: byte ranges into memory, written bytes into objects, prefixes into pages; in parallel, within a budget.

What reading an object does not need is imported when it is used.
"""

from typing import TYPE_CHECKING

from s3torchconnector._late_imports import names_from
from s3torchconnector._transfer.engine._collector import leave_to_collector
from s3torchconnector._transfer.engine._debug_state import debug_state
from s3torchconnector._transfer.engine._memory import FillableBytes, address_of
from s3torchconnector._transfer.engine._node import connections_of_worker, count_workers_by, ranks_of_node
from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.engine._runtime import OpenRuntime, Runtime
from s3torchconnector._transfer.engine._shared import of_process
from s3torchconnector._transfer.engine._workers import Lane, Workers
from s3torchconnector._transfer.reading._compare import Loaded, prepare_verification
from s3torchconnector._transfer.reading._fetch import RangeFetch
from s3torchconnector._transfer.reading._fetch_group import FetchGroup
from s3torchconnector._transfer.reading._object_reader import ObjectReader
from s3torchconnector._transfer.reading._object_source import BytesByPosition, GetObjectStream, ObjectSource
from s3torchconnector._transfer.reading._object_version import ObjectVersion
from s3torchconnector._transfer.reading._read_policy import (
    ADAPTIVE,
    DEFAULT_MAX_GAP_SIZE,
    FIRST_BYTES,
    SEQUENTIAL,
    ReadPolicy,
    range_based,
)

if TYPE_CHECKING:
    from s3torchconnector._transfer._commit_object import CommitObject, Seen, refused_for_sure
    from s3torchconnector._transfer.listing._listing import ListObjectStream, is_listed_in_order, list_uploads
    from s3torchconnector._transfer.listing._parallel_listing import list_all
    from s3torchconnector._transfer.listing._resumed_listing import list_after
    from s3torchconnector._transfer.reading._counted_object import CountedVersion
    from s3torchconnector._transfer.reading._discard import discarded
    from s3torchconnector._transfer.reading._look_ahead import look_ahead
    from s3torchconnector._transfer.reading._pieces import Piece, PiecesReader
    from s3torchconnector._transfer.reading._pinned_object import PinnedObject, PinnedRange
    from s3torchconnector._transfer.writing._abandoned_uploads import (
        abort_together,
        expect_no_more_uploads,
        expect_uploads,
    )
    from s3torchconnector._transfer.writing._copy import ObjectCopy, Place
    from s3torchconnector._transfer.writing._deletions import MOST_TOGETHER, check_deleted, delete_objects
    from s3torchconnector._transfer.writing._put_object_stream import PutObjectStream
    from s3torchconnector._transfer.writing._start_over import start_over_if_refused

__all__ = [
    "ADAPTIVE",
    "DEFAULT_MAX_GAP_SIZE",
    "FIRST_BYTES",
    "MOST_TOGETHER",
    "SEQUENTIAL",
    "BytesByPosition",
    "CommitObject",
    "CountedVersion",
    "FetchGroup",
    "FillableBytes",
    "GetObjectStream",
    "Lane",
    "ListObjectStream",
    "Loaded",
    "ObjectCopy",
    "ObjectReader",
    "ObjectSource",
    "ObjectVersion",
    "OpenRuntime",
    "Piece",
    "PiecesReader",
    "PinnedObject",
    "PinnedRange",
    "Place",
    "PutObjectStream",
    "Range",
    "RangeFetch",
    "ReadPolicy",
    "Runtime",
    "Seen",
    "Workers",
    "abort_together",
    "address_of",
    "check_deleted",
    "connections_of_worker",
    "count_workers_by",
    "debug_state",
    "delete_objects",
    "discarded",
    "expect_no_more_uploads",
    "expect_uploads",
    "is_listed_in_order",
    "leave_to_collector",
    "list_after",
    "list_all",
    "list_uploads",
    "look_ahead",
    "of_process",
    "prepare_verification",
    "range_based",
    "ranks_of_node",
    "refused_for_sure",
    "start_over_if_refused",
]

__getattr__ = names_from(
    __name__,
    {
        "CommitObject": "_commit_object",
        "CountedVersion": "reading._counted_object",
        "Seen": "_commit_object",
        "MOST_TOGETHER": "writing._deletions",
        "check_deleted": "writing._deletions",
        "delete_objects": "writing._deletions",
        "discarded": "reading._discard",
        "ListObjectStream": "listing._listing",
        "ObjectCopy": "writing._copy",
        "Piece": "reading._pieces",
        "PiecesReader": "reading._pieces",
        "PinnedObject": "reading._pinned_object",
        "PinnedRange": "reading._pinned_object",
        "Place": "writing._copy",
        "PutObjectStream": "writing._put_object_stream",
        "abort_together": "writing._abandoned_uploads",
        "expect_uploads": "writing._abandoned_uploads",
        "is_listed_in_order": "listing._listing",
        "list_after": "listing._resumed_listing",
        "list_all": "listing._parallel_listing",
        "list_uploads": "listing._listing",
        "look_ahead": "reading._look_ahead",
        "refused_for_sure": "_commit_object",
        "start_over_if_refused": "writing._start_over",
        "expect_no_more_uploads": "writing._abandoned_uploads",
    },
)
