"""Compatibility with 1.5.0: the names of its native client package that programs import."""

from s3torchconnector._errors import S3Exception
from s3torchconnector._version import __version__

__all__ = ["LOG_TRACE", "S3Exception", "__version__"]

LOG_TRACE = 5
"""The logging level below DEBUG that the native client uses. This package does not use it."""
