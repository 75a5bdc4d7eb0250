"""Reading objects: ``S3Reader``, and the constructors that choose how reads become requests."""

from s3torchconnector.s3reader.constructor import S3ReaderConstructor, S3ReaderConstructorProtocol
from s3torchconnector.s3reader.kinds import DCPOptimizedS3Reader, RangedS3Reader, SequentialS3Reader
from s3torchconnector.s3reader.s3reader import S3Reader

__all__ = [
    "DCPOptimizedS3Reader",
    "RangedS3Reader",
    "S3Reader",
    "S3ReaderConstructor",
    "S3ReaderConstructorProtocol",
    "SequentialS3Reader",
]
