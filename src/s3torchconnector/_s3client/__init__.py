"""The S3 client that datasets, checkpoints and custom dataset functions are given."""

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._s3client._early_readers import EarlyReaders, Offer
from s3torchconnector._s3client.s3client import S3Client

__all__ = ["EarlyReaders", "Offer", "S3Client", "S3ClientConfig"]
