"""Compatibility: the names of the native client package that programs import."""

from s3torchconnector._errors import S3Exception
from s3torchconnector._version import __version__

__all__ = ["S3Exception", "__version__"]
