"""The S3 client that datasets, checkpoints and custom dataset functions are given."""

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._late_imports import names_from
from s3torchconnector._s3client._early_readers import EarlyReaders, Offer
from s3torchconnector._s3client._s3client import S3Client

__all__ = ["EarlyReaders", "MockS3Client", "Offer", "S3Client", "S3ClientConfig"]

__getattr__ = names_from(__name__, {"MockS3Client": "_mock_s3client"})
