"""Compatibility with 1.5.0: where it has ``S3ClientConfig``."""

from s3torchconnector._config import S3ClientConfig

__all__ = ["S3ClientConfig"]
