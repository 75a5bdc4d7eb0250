"""``SequentialS3Reader``: the class of readers, unless the program chooses another."""

from s3torchconnector._transfer import GetObjectStream  # noqa: F401 (1.5.0 has it and the next two here)
from s3torchconnector._types import HeadObjectResult, ObjectInfo  # noqa: F401
from s3torchconnector.s3reader.s3reader import S3Reader

__all__ = ["SequentialS3Reader"]


class SequentialS3Reader(S3Reader):
    """What ``S3ReaderConstructor.default()`` and ``sequential()`` make.

    Example:
        >>> from s3torchconnector import S3Checkpoint, S3ReaderConstructor
        >>> checkpoint = S3Checkpoint("us-east-1", reader_constructor=S3ReaderConstructor.sequential())
        >>> checkpoint.reader("s3://my-bucket/images/0.png")
        <SequentialS3Reader s3://my-bucket/images/0.png at 0>
    """
