"""Reading objects: ``S3Reader``, and the constructors that choose how reads become requests."""

from s3torchconnector.s3reader.constructor import S3ReaderConstructor, S3ReaderConstructorProtocol
from s3torchconnector.s3reader.s3reader import S3Reader

__all__ = ["S3Reader", "S3ReaderConstructor", "S3ReaderConstructorProtocol"]
