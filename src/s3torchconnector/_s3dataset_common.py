"""Compatibility with 1.5.0: what subclasses of the datasets import from here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from s3torchconnector._dataset_source import identity, objects_from_prefix, objects_from_uris
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._s3client import S3Client
from s3torchconnector._uri import parse_s3_uri
from s3torchconnector.s3reader import S3Reader  # noqa: F401 (1.5.0 has it here)

__all__ = ["get_objects_from_prefix", "get_objects_from_uris", "identity", "parse_s3_uri"]


def get_objects_from_uris(object_uris: str | Iterable[str], client: S3Client) -> Iterator[S3BucketKeyData]:
    """Return objects that are named one by one. With ``partial``, this makes a ``get_dataset_objects``.

    Raises:
        TypeError, ValueError: a URI does not name an object.
    """
    return iter(objects_from_uris(object_uris)(client))


def get_objects_from_prefix(s3_uri: str, client: S3Client) -> Iterator[S3BucketKeyData]:
    """Return the objects whose keys begin with a prefix. They are listed while they are taken.

    Raises:
        TypeError, ValueError: ``s3_uri`` is not an ``s3://`` URI.
    """
    return iter(objects_from_prefix(s3_uri)(client))
