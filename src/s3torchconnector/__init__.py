"""Train from Amazon S3 and checkpoint to it with PyTorch: fast, pure Python, safe under fork."""

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3Exception
from s3torchconnector._version import __version__
from s3torchconnector.s3checkpoint import S3Checkpoint
from s3torchconnector.s3checkpoint_manager import S3CheckpointManager
from s3torchconnector.s3iterable_dataset import S3IterableDataset
from s3torchconnector.s3map_dataset import S3MapDataset
from s3torchconnector.s3reader import S3Reader, S3ReaderConstructor
from s3torchconnector.s3writer import S3Writer

__all__ = [
    "S3Checkpoint",
    "S3CheckpointManager",
    "S3ClientConfig",
    "S3Exception",
    "S3IterableDataset",
    "S3MapDataset",
    "S3Reader",
    "S3ReaderConstructor",
    "S3Writer",
    "__version__",
]
