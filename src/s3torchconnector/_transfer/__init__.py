"""Transfers: byte ranges into memory, written bytes into objects, prefixes into pages; in parallel, within a budget.

What reading an object does not need is imported when it is used.
"""

from typing import TYPE_CHECKING

from s3torchconnector._late_imports import names_from
from s3torchconnector._transfer._collector import leave_to_collector
from s3torchconnector._transfer._compare import Loaded, prepare_verification
from s3torchconnector._transfer._fetch import RangeFetch
from s3torchconnector._transfer._fetch_group import FetchGroup
from s3torchconnector._transfer._memory import address_of
from s3torchconnector._transfer._node import count_workers_by
from s3torchconnector._transfer._object_reader import ObjectReader
from s3torchconnector._transfer._object_source import GetObjectStream, ObjectSource
from s3torchconnector._transfer._object_version import ObjectVersion
from s3torchconnector._transfer._ranges import Range
from s3torchconnector._transfer._read_policy import ADAPTIVE, SEQUENTIAL, ReadPolicy, range_based
from s3torchconnector._transfer._runtime import OpenRuntime, Runtime
from s3torchconnector._transfer._workers import Lane, Workers

if TYPE_CHECKING:
    from s3torchconnector._transfer._commit_object import CommitObject, Seen, refused_for_sure
    from s3torchconnector._transfer._listing import ListObjectStream, list_uploads
    from s3torchconnector._transfer._look_ahead import look_ahead
    from s3torchconnector._transfer._open_uploads import abort_together, expect_uploads, settle_uploads
    from s3torchconnector._transfer._parallel_listing import list_all
    from s3torchconnector._transfer._pieces import Piece, PiecesReader
    from s3torchconnector._transfer._put_object_stream import PutObjectStream

__all__ = [
    "ADAPTIVE",
    "SEQUENTIAL",
    "CommitObject",
    "FetchGroup",
    "GetObjectStream",
    "Lane",
    "ListObjectStream",
    "Loaded",
    "ObjectReader",
    "ObjectSource",
    "ObjectVersion",
    "OpenRuntime",
    "Piece",
    "PiecesReader",
    "PutObjectStream",
    "Range",
    "RangeFetch",
    "ReadPolicy",
    "Runtime",
    "Seen",
    "Workers",
    "abort_together",
    "address_of",
    "count_workers_by",
    "expect_uploads",
    "leave_to_collector",
    "list_all",
    "list_uploads",
    "look_ahead",
    "prepare_verification",
    "range_based",
    "refused_for_sure",
    "settle_uploads",
]

__getattr__ = names_from(
    __name__,
    {
        "CommitObject": "_commit_object",
        "Seen": "_commit_object",
        "ListObjectStream": "_listing",
        "Piece": "_pieces",
        "PiecesReader": "_pieces",
        "PutObjectStream": "_put_object_stream",
        "abort_together": "_open_uploads",
        "expect_uploads": "_open_uploads",
        "list_all": "_parallel_listing",
        "list_uploads": "_listing",
        "look_ahead": "_look_ahead",
        "refused_for_sure": "_commit_object",
        "settle_uploads": "_open_uploads",
    },
)
