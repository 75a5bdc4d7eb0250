"""Train from Amazon S3 and checkpoint to it with PyTorch: fast, pure Python, safe under fork.

Each name brings its module with it when it is first used (PEP 562): a program that loads a checkpoint waits for
neither the datasets nor the checkpoint manager.
"""

from typing import TYPE_CHECKING

from s3torchconnector._late_imports import names_from
from s3torchconnector._version import __version__

if TYPE_CHECKING:
    from s3torchconnector._config import S3ClientConfig
    from s3torchconnector._customer_key import S3CustomerKey
    from s3torchconnector._s3client import S3Client
    from s3torchconnector._s3credentials import S3Credentials
    from s3torchconnector._types import ObjectInfo
    from s3torchconnector._write_options import S3WriteOptions
    from s3torchconnector.elastic_distributed_sampler import ElasticDistributedSampler
    from s3torchconnector.errors import S3Exception
    from s3torchconnector.s3cache import S3Cache
    from s3torchconnector.s3checkpoint import S3Checkpoint
    from s3torchconnector.s3checkpoint_manager import S3CheckpointManager
    from s3torchconnector.s3dataloader import S3DataLoader
    from s3torchconnector.s3iterable_dataset import S3IterableDataset
    from s3torchconnector.s3manifest import S3Manifest
    from s3torchconnector.s3map_dataset import S3MapDataset
    from s3torchconnector.s3reader import S3Reader, S3ReaderConstructor, S3ReaderConstructorProtocol
    from s3torchconnector.s3streaming_dataset import S3StreamingDataset
    from s3torchconnector.s3writer import S3Writer

__all__ = [
    "ElasticDistributedSampler",
    "ObjectInfo",
    "S3Cache",
    "S3Checkpoint",
    "S3CheckpointManager",
    "S3Client",
    "S3ClientConfig",
    "S3Credentials",
    "S3CustomerKey",
    "S3DataLoader",
    "S3Exception",
    "S3IterableDataset",
    "S3Manifest",
    "S3MapDataset",
    "S3Reader",
    "S3ReaderConstructor",
    "S3ReaderConstructorProtocol",
    "S3StreamingDataset",
    "S3WriteOptions",
    "S3Writer",
    "__version__",
]

_MODULES = {
    "ElasticDistributedSampler": "elastic_distributed_sampler",
    "ObjectInfo": "_types",
    "S3Cache": "s3cache",
    "S3Checkpoint": "s3checkpoint",
    "S3CheckpointManager": "s3checkpoint_manager",
    "S3Client": "_s3client",
    "S3ClientConfig": "_config",
    "S3Credentials": "_s3credentials",
    "S3CustomerKey": "_customer_key",
    "S3DataLoader": "s3dataloader",
    "S3Exception": "errors",
    "S3IterableDataset": "s3iterable_dataset",
    "S3Manifest": "s3manifest",
    "S3MapDataset": "s3map_dataset",
    "S3Reader": "s3reader",
    "S3ReaderConstructor": "s3reader",
    "S3ReaderConstructorProtocol": "s3reader",
    "S3StreamingDataset": "s3streaming_dataset",
    "S3WriteOptions": "_write_options",
    "S3Writer": "s3writer",
}


__getattr__ = names_from(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
