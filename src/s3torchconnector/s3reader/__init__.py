"""Reading objects: ``S3Reader``, and the constructors that choose how reads become requests."""

from typing import TYPE_CHECKING

from s3torchconnector._late_imports import names_from
from s3torchconnector.s3reader.constructor import DCPOptimizedConstructor, S3ReaderConstructor
from s3torchconnector.s3reader.protocol import (
    DCPS3ReaderConstructorProtocol,
    GetStreamCallable,
    S3ReaderConstructorProtocol,
)
from s3torchconnector.s3reader.s3reader import S3Reader
from s3torchconnector.s3reader.sequential import SequentialS3Reader

if TYPE_CHECKING:
    from s3torchconnector.s3reader.dcp_optimized import DCPOptimizedS3Reader, ItemRange, RangeGroup
    from s3torchconnector.s3reader.ranged import RangedS3Reader

__all__ = [
    "DCPOptimizedConstructor",
    "DCPOptimizedS3Reader",
    "DCPS3ReaderConstructorProtocol",
    "GetStreamCallable",
    "ItemRange",
    "RangeGroup",
    "RangedS3Reader",
    "S3Reader",
    "S3ReaderConstructor",
    "S3ReaderConstructorProtocol",
    "SequentialS3Reader",
]

__getattr__ = names_from(
    __name__,
    {
        "DCPOptimizedS3Reader": "dcp_optimized",
        "ItemRange": "dcp_optimized",
        "RangeGroup": "dcp_optimized",
        "RangedS3Reader": "ranged",
    },
)
