"""``S3MapDataset``: objects by index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from torch.utils.data import Dataset

from s3torchconnector._batch_rest import BatchRest
from s3torchconnector._called_for import CalledFor, Uptake
from s3torchconnector._config import S3ClientConfig
from s3torchconnector._dataset_parameters import document
from s3torchconnector._dataset_source import (
    DatasetSource,
    GetDatasetObjects,
    ObjectTable,
    PinnedObjects,
    Transform,
    identity,
    objects_from_prefix,
    objects_from_uris,
)
from s3torchconnector._early_samples import Samples
from s3torchconnector._key_table import KeyTable
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._s3client import S3Client
from s3torchconnector._s3dataset_common import get_objects_from_prefix, get_objects_from_uris  # noqa: F401
from s3torchconnector._samples._items import name_sample
from s3torchconnector._source_attribute import SourceAttribute
from s3torchconnector._user_agent import UserAgent  # noqa: F401 (1.5.0 has it here, and S3ReaderConstructor)
from s3torchconnector.s3cache import S3Cache
from s3torchconnector.s3manifest import S3Manifest
from s3torchconnector.s3reader import S3Reader, S3ReaderConstructor, S3ReaderConstructorProtocol  # noqa: F401

__all__ = ["S3MapDataset"]


@document
class S3MapDataset(Dataset[Any]):
    """S3 objects as a map-style dataset: samples by index. Make one with ``from_prefix`` or ``from_objects``.

    The objects are listed at first use. Their names are kept in a compact table, which forked ``DataLoader`` workers
    share. A ``DataLoader`` asks for whole batches (``__getitems__``), whose objects are fetched concurrently.

    A dataset pickles as configuration, together with the table if there is one.

    Args:
        region, get_dataset_objects, endpoint, transform: described in ``_dataset_parameters``.
        s3client_config, reader_constructor: described in ``_dataset_parameters``.

    Example:
        >>> from s3torchconnector import S3MapDataset
        >>> dataset = S3MapDataset.from_prefix(
        ...     "s3://my-bucket/images/", region="us-east-1", transform=lambda reader: (reader.key, len(reader.read()))
        ... )
        >>> len(dataset), dataset[1]
        (3, ('images/1.png', 10))
    """

    # By the names of 1.5.0, for subclasses, which may assign them, too.
    _client, _transform, _get_dataset_objects = SourceAttribute(), SourceAttribute(), SourceAttribute()
    _region, _endpoint, _s3client_config = SourceAttribute(), SourceAttribute(), SourceAttribute()
    _reader_constructor = SourceAttribute()

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
            region, get_dataset_objects, endpoint, transform, s3client_config, reader_constructor, "map"
        )
        self._table: ObjectTable | None = None
        self._manifest: S3Manifest | None = None
        self._uptake = Uptake()
        self._rest: BatchRest | None = None  # of a batch in which a sample failed

    @property
    def region(self) -> str:
        """The region of the bucket."""
        return self._source.region

    @property
    def endpoint(self) -> str | None:
        """The URL of the S3 server, if one was given."""
        return self._source.endpoint

    @property
    def manifest(self) -> S3Manifest | None:
        """The manifest that the dataset was made from, if it was."""
        return self._manifest

    @classmethod
    @document
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
        """Make a dataset of the objects that are named. No request is made.

        Args:
            object_uris, region, endpoint, transform: described in ``_dataset_parameters``.
            s3client_config, reader_constructor: described in ``_dataset_parameters``.

        Raises:
            TypeError, ValueError: a URI does not name an object.
            S3ConfigurationError: (a ``ValueError``) the region cannot be used.
        """
        return cls(
            region, objects_from_uris(object_uris), endpoint, transform=transform, s3client_config=s3client_config,
            reader_constructor=reader_constructor,
        )  # fmt: skip

    @classmethod
    @document
    def from_prefix(
        cls,
        s3_uri: str,
        *,
        region: str,
        endpoint: str | None = None,
        transform: Transform = identity,
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        skip_archived: bool = False,
    ) -> S3MapDataset:
        """Make a dataset of all objects whose keys begin with a prefix. They are listed at first use.

        Args:
            s3_uri, region, endpoint, transform: described in ``_dataset_parameters``.
            s3client_config, reader_constructor, skip_archived: described in ``_dataset_parameters``.

        Raises:
            TypeError, ValueError: ``s3_uri`` is not an ``s3://`` URI.
            S3ConfigurationError: (a ``ValueError``) the region cannot be used.
        """
        return cls(
            region, objects_from_prefix(s3_uri, skip_archived), endpoint, transform=transform,
            s3client_config=s3client_config, reader_constructor=reader_constructor,
        )  # fmt: skip

    @classmethod
    @document
    def from_manifest(
        cls,
        manifest: S3Manifest,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        transform: Transform = identity,
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        cache: S3Cache | None = None,
    ) -> S3MapDataset:
        """Make a dataset of a manifest's objects. Nothing is listed, and only the listed versions are read.

        Args:
            manifest: the objects. Where they are, and how they are accessed, is known from it, unless it is given.
            region, endpoint, transform: described in ``_dataset_parameters``.
            s3client_config, reader_constructor, cache: described in ``_dataset_parameters``.
        """
        region, endpoint, s3client_config = manifest._place(region, endpoint, s3client_config)
        dataset = cls(
            region, PinnedObjects(manifest, cache), endpoint, transform=transform, s3client_config=s3client_config,
            reader_constructor=reader_constructor,
        )  # fmt: skip
        dataset._manifest = manifest
        return dataset

    def __len__(self) -> int:
        """Return the number of objects. The first use lists them.

        Raises:
            S3Exception: an error occurred accessing S3.
        """
        return len(self._dataset_bucket_key_pairs)

    def __getitem__(self, i: int) -> Any:
        """Return the transformed sample at ``i``. Only what the transform reads is requested.

        Raises:
            IndexError: there is no such sample.
            S3Exception: an error occurred accessing S3.
        """
        if self._rest is not None and type(self).__getitem__ is S3MapDataset.__getitem__:
            for sample in self._rest.take(i):
                return sample
        opened = self._get_object(i)
        try:
            return self._source.transform(opened)
        except Exception as error:
            if type(self)._get_object is S3MapDataset._get_object:  # or it may be any object
                name_sample(error, self._dataset_bucket_key_pairs[i])
            raise

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return a batch of transformed samples. Their objects are fetched concurrently, and transformed in order.

        If a sample fails, its error is raised. What was made and fetched of the others is kept until the next batch:
        the program can ask for them by index, or for the batch again, and they are not fetched twice.

        If a subclass overrides ``__getitem__`` or ``_get_object``, it is called for one index after the other, with
        the objects at these indices on their way.

        Raises:
            IndexError: there is no such sample.
            S3Exception: an error occurred accessing S3.
        """
        rest, self._rest = self._rest, None
        batch = [(i, [] if rest is None else rest.take(i)) for i in indices]
        samples = self._samples([i for i, kept in batch if not kept])
        made = []
        try:
            for i, kept in batch:
                made.append((i, kept[0] if kept else next(samples)))
        except Exception:
            made += [(i, kept[0]) for i, kept in batch[len(made) + 1 :] if kept]
            self._rest = BatchRest(self._source, made, samples.leave())
            raise
        except BaseException:
            samples.close()
            raise
        finally:
            if rest is not None:
                rest.close()
        return [sample for _, sample in made]

    def _samples(self, indices: list[int]) -> Samples[Any]:
        kind, source = type(self), self._source
        if kind.__getitem__ is S3MapDataset.__getitem__ and kind._get_object is S3MapDataset._get_object:
            table = self._dataset_bucket_key_pairs
            return Samples.of(source, [table[i] for i in indices], None)
        calls = (CalledFor(source, self._likely_object(i), partial(self.__getitem__, i), self._uptake) for i in indices)
        return Samples(calls, [source], None, self._uptake.is_certain)

    def _likely_object(self, i: int) -> S3BucketKeyData | None:
        """The object that an override of ``__getitem__`` or ``_get_object`` will open."""
        if self._table is None:  # it may not need a listing
            return None
        try:
            return self._dataset_bucket_key_pairs[i]
        except (IndexError, KeyError, TypeError):  # its indices may be others
            return None

    def _objects(self) -> ObjectTable:
        if self._table is None:
            self._client = self._get_client()
            self._table = self._source.table()
        return self._table

    @property
    def _dataset_bucket_key_pairs(self) -> ObjectTable:
        """The objects. A subclass may override this to choose among them."""
        return self._objects()

    @property
    def _bucket_key_pairs(self) -> Any:
        """The objects, if they were listed. A subclass may assign other ones."""
        return self._table

    @_bucket_key_pairs.setter
    def _bucket_key_pairs(self, pairs: Any) -> None:
        self._table = None if pairs is None else KeyTable(pairs)

    def _get_client(self) -> S3Client:
        """The client. A subclass may override this to give its own."""
        return self._source.client

    def _get_object(self, i: int) -> Any:
        """The reader of the object at ``i``. A subclass may override this."""
        return self._source.open(self._dataset_bucket_key_pairs[i])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rest": None}
