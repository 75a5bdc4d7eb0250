"""Compatibility with 1.5.0: the types of its documented signatures, where programs import them from."""

from s3torchconnector._errors import S3Exception
from s3torchconnector._transfer import GetObjectStream, ListObjectStream, PutObjectStream
from s3torchconnector._types import HeadObjectResult, ListObjectResult, ObjectInfo, RestoreStatus

__all__ = [
    "GetObjectStream",
    "HeadObjectResult",
    "ListObjectResult",
    "ListObjectStream",
    "ObjectInfo",
    "PutObjectStream",
    "RestoreStatus",
    "S3Exception",
]
