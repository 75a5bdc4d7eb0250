"""``S3MapDataset``: objects by index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch.utils.data import Dataset

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._dataset_source import (
    DatasetSource,
    GetDatasetObjects,
    Transform,
    identity,
    objects_from_prefix,
    objects_from_uris,
)
from s3torchconnector._key_table import KeyTable
from s3torchconnector.s3reader import S3ReaderConstructorProtocol


class S3MapDataset(Dataset[Any]):
    """A Map-Style dataset created from S3 objects.

    To create an instance of S3MapDataset, you need to use from_prefix or from_objects methods.

    The objects are listed at first use, and their names kept in a compact table that DataLoader workers share. A
    DataLoader asks for whole batches (``__getitems__``), whose objects are fetched concurrently.
    """

    def __init__(
        self,
        region: str,
        get_dataset_objects: GetDatasetObjects,
        endpoint: str | None = None,
        transform: Transform = identity,
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
    ) -> None:
        self._source = DatasetSource(
            region, get_dataset_objects, endpoint, transform, s3client_config, reader_constructor
        )
        self._table: KeyTable | None = None

    @property
    def region(self) -> str:
        """AWS region of the bucket."""
        return self._source.region

    @property
    def endpoint(self) -> str | None:
        """URL of the S3 server, if one was given."""
        return self._source.endpoint

    @classmethod
    def from_objects(
        cls,
        object_uris: str | Iterable[str],
        *,
        region: str,
        endpoint: str | None = None,
        transform: Transform = identity,
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
    ) -> S3MapDataset:
        """Returns an instance of S3MapDataset using the S3 URI(s) provided.

        Args:
            object_uris: S3 URI of the object(s) desired.
            region: AWS region of the S3 bucket where the objects are stored.
            endpoint: AWS endpoint of the S3 bucket where the objects are stored.
            transform: Optional callable which is used to transform an S3Reader into the desired type.
            s3client_config: Optional S3ClientConfig with parameters for S3 client.
            reader_constructor: Optional way of reading, see S3ReaderConstructor.

        Returns:
            A Map-Style dataset created from S3 objects.

        Raises:
            TypeError, ValueError: a URI does not name an object.
        """
        return cls(
            region, objects_from_uris(object_uris), endpoint, transform=transform, s3client_config=s3client_config,
            reader_constructor=reader_constructor,
        )  # fmt: skip

    @classmethod
    def from_prefix(
        cls,
        s3_uri: str,
        *,
        region: str,
        endpoint: str | None = None,
        transform: Transform = identity,
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
    ) -> S3MapDataset:
        """Returns an instance of S3MapDataset using the S3 URI provided.

        Args:
            s3_uri: An S3 URI (prefix) of the object(s) desired. Objects matching the prefix will be included in the
                returned dataset; empty objects whose key ends with ``/`` (directory markers) are not.
            region: AWS region of the S3 bucket where the objects are stored.
            endpoint: AWS endpoint of the S3 bucket where the objects are stored.
            transform: Optional callable which is used to transform an S3Reader into the desired type.
            s3client_config: Optional S3ClientConfig with parameters for S3 client.
            reader_constructor: Optional way of reading, see S3ReaderConstructor.

        Returns:
            A Map-Style dataset created from S3 objects.

        Raises:
            TypeError, ValueError: ``s3_uri`` is not an S3 URI.
            S3Exception: An error occurred accessing S3 (at first use).
        """
        return cls(
            region, objects_from_prefix(s3_uri), endpoint, transform=transform, s3client_config=s3client_config,
            reader_constructor=reader_constructor,
        )  # fmt: skip

    def __len__(self) -> int:
        """How many objects there are; lists them at first use."""
        return len(self._objects())

    def __getitem__(self, i: int) -> Any:
        """The transformed sample at ``i``. What the transform reads is all that is requested.

        Raises:
            IndexError: there is no such sample.
            S3Exception: An error occurred accessing S3.
        """
        return self._source.transform(self._source.open(self._objects()[i]))

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """A batch of transformed samples, fetched concurrently and transformed in order as they arrive.

        Where a subclass has a ``__getitem__`` of its own, that makes each of them, one after the other: which objects
        it will ask for is not known before. Work that belongs to one object is faster in the transform.
        """
        if type(self).__getitem__ is not S3MapDataset.__getitem__:
            return [self[i] for i in indices]
        table = self._objects()
        items = [table[i] for i in indices]
        return list(self._source.samples(items, None))

    def _objects(self) -> KeyTable:
        if self._table is None:
            self._table = self._source.table()
        return self._table
