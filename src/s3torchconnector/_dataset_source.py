"""What both datasets are made of: which objects, how to open them, and what to make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._key_table import KeyTable
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer import look_ahead
from s3torchconnector._uri import parse_object_uri, parse_s3_uri
from s3torchconnector.s3reader import S3Reader, S3ReaderConstructorProtocol

GetDatasetObjects = Callable[[S3Client], Iterable[S3BucketKeyData]]
Transform = Callable[[S3Reader], Any]


def identity(reader: S3Reader) -> S3Reader:
    """The default transform: the sample is the reader itself."""
    return reader


@dataclass(frozen=True)
class DatasetSource:
    """The objects of a dataset, and everything that is needed to read them. Pickles as configuration."""

    region: str
    get_dataset_objects: GetDatasetObjects
    endpoint: str | None = None
    transform: Transform = identity
    s3client_config: S3ClientConfig | None = None
    reader_constructor: S3ReaderConstructorProtocol | None = None
    client: S3Client = field(init=False, compare=False)

    def __post_init__(self) -> None:
        client = S3Client(self.region, endpoint=self.endpoint, s3client_config=self.s3client_config)
        object.__setattr__(self, "client", client)

    def objects(self) -> Iterable[S3BucketKeyData]:
        """The objects; a listing is made as they are asked for."""
        return self.get_dataset_objects(self.client)

    def open(self, item: S3BucketKeyData) -> S3Reader:
        """A reader of one of them. Makes no request."""
        return self.client.get_object(
            item.bucket, item.key, object_info=item.object_info, reader_constructor=self.reader_constructor
        )

    def samples(self, items: Iterable[S3BucketKeyData], most: int | None) -> Iterator[Any]:
        """The transformed samples of ``items``, in order; at most ``most`` of the next ones are on their way."""
        readers = look_ahead(map(self.open, items), self.client.runtime(), most)
        try:
            for reader in readers:
                yield self.transform(reader)
        finally:
            readers.close()


def objects_from_uris(object_uris: str | Iterable[str]) -> GetDatasetObjects:
    """Objects named one by one.

    Raises:
        TypeError, ValueError: one is not the URI of an object.
    """
    uris = [object_uris] if isinstance(object_uris, str) else object_uris
    return partial(_given, KeyTable(S3BucketKeyData(*parse_object_uri(uri)) for uri in uris))


def objects_from_prefix(s3_uri: str) -> GetDatasetObjects:
    """Objects whose keys begin with the URI's key.

    Raises:
        TypeError, ValueError: it is not an S3 URI.
    """
    return partial(_listed, *parse_s3_uri(s3_uri))


def _given(objects: KeyTable, _: S3Client) -> Iterable[S3BucketKeyData]:
    return objects


def _listed(bucket: str, prefix: str, client: S3Client) -> Iterator[S3BucketKeyData]:
    for page in client.list_all(bucket, prefix):
        for info in page:
            # Consoles mark "directories" by empty objects of that name: no sample is meant by them.
            if info.size or not info.key.endswith("/"):
                yield S3BucketKeyData(bucket, info.key, info)
