"""What the datasets have in common: which objects, how to open them, and how to make samples of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from torch.utils.data import get_worker_info

from s3torchconnector._cached_object import Hits, cached, is_hit
from s3torchconnector._config import S3ClientConfig
from s3torchconnector._key_table import KeyTable
from s3torchconnector._late_imports import no_fork
from s3torchconnector._listed_objects import ListedObjects
from s3torchconnector._platform import at_fork
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._s3client import S3Client
from s3torchconnector._samples._dicts import ArchiveSample, GroupSample
from s3torchconnector._samples._fetched import FetchedSample
from s3torchconnector._samples._items import ArchiveItem, GroupItem, RangeItem, RecordItem
from s3torchconnector._samples._records import record_sample
from s3torchconnector._transfer import ObjectSource, PinnedObject, PinnedRange, count_workers_by
from s3torchconnector._types import ObjectInfo
from s3torchconnector._uri import parse_object_uri, parse_s3_uri
from s3torchconnector._user_agent import UserAgent
from s3torchconnector._wire import import_for_workers
from s3torchconnector.s3cache import S3Cache
from s3torchconnector.s3reader import S3Reader, S3ReaderConstructor, S3ReaderConstructorProtocol

GetDatasetObjects = Callable[[S3Client], Iterable[S3BucketKeyData]]
Transform = Callable[[S3Reader], Any]


class ObjectTable(Protocol):
    """Objects by number: a ``KeyTable``, or a manifest."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> S3BucketKeyData: ...

    def __iter__(self) -> Iterator[S3BucketKeyData]: ...


def is_whole_object(item: S3BucketKeyData) -> bool:
    """Whether a sample is an object, and not a part of one, or several."""
    return type(item) is S3BucketKeyData


def identity(obj: S3Reader) -> S3Reader:
    """The default transform: the sample is the reader itself."""
    return obj


@dataclass(frozen=True)
class DatasetSource:
    """The objects of a dataset, and all that is needed to read them. Pickles as configuration.

    Attributes:
        kind: what the User-Agent header calls the dataset.
        pinned: whether objects are read in exactly the version that their ``object_info`` describes.
        cache: what keeps their bytes on this node.
        hits: how many of those that were opened it had.
    """

    region: str
    get_dataset_objects: GetDatasetObjects
    endpoint: str | None = None
    transform: Transform = identity
    s3client_config: S3ClientConfig | None = None
    reader_constructor: S3ReaderConstructorProtocol | None = None
    kind: str = "iterable"
    client: S3Client = field(init=False, compare=False)
    pinned: bool = field(init=False, compare=False)
    cache: S3Cache | None = field(init=False, compare=False)
    hits: Hits = field(init=False, compare=False, default_factory=Hits)

    def __post_init__(self) -> None:
        self.renew_client()

    def renew_client(self) -> None:
        """Make a client from the settings as they are now."""
        reading = S3ReaderConstructor.get_reader_type_string(self.reader_constructor)
        agent = UserAgent([f"md/dataset#{self.kind} md/reader_type#{reading}"])
        client = S3Client(self.region, endpoint=self.endpoint, user_agent=agent, s3client_config=self.s3client_config)
        object.__setattr__(self, "client", client)
        objects = self.get_dataset_objects
        object.__setattr__(self, "pinned", isinstance(objects, PinnedObjects))
        object.__setattr__(self, "cache", objects.cache if isinstance(objects, PinnedObjects) else None)

    def objects(self) -> Iterable[S3BucketKeyData]:
        """The objects. A prefix is listed while they are iterated over."""
        return self.get_dataset_objects(self.client)

    def objects_in_order(self) -> Iterable[S3BucketKeyData]:
        """The objects in an order that all ranks agree on."""
        objects = self.objects()
        return objects.in_order() if isinstance(objects, ListedObjects) else objects

    def table(self) -> ObjectTable:
        """The objects by index. A prefix is listed now."""
        objects = self.objects()
        if isinstance(self.get_dataset_objects, PinnedObjects):
            return self.get_dataset_objects.objects
        if isinstance(objects, ListedObjects):
            return objects.table()
        return objects if isinstance(objects, KeyTable) else KeyTable(objects)

    def open(self, item: S3BucketKeyData) -> Any:
        """The argument of the transform: a reader, for which no request is made; or the value that is made from its
        bytes.
        """
        opened = self.open_early(item)
        return opened.file if isinstance(opened, FetchedSample) else opened

    def open_early(self, item: S3BucketKeyData) -> Any:
        """Open a sample: a reader, or a ``FetchedSample``. No request is made."""
        if not is_whole_object(item):
            if isinstance(item, ArchiveItem):
                return ArchiveSample(item, self._open_part)
            if isinstance(item, GroupItem):
                return GroupSample(item, self._open_part)
            if isinstance(item, RecordItem):
                return record_sample(item, self._open_part)
        if self.pinned:
            return self._open_quietly(item)
        return self.client.get_object(
            item.bucket, item.key, object_info=item.object_info, reader_constructor=self.reader_constructor
        )

    def open_for_call(self, item: S3BucketKeyData) -> Any:
        """Open a sample for a method of the program, without ``get_object`` of the client, which programs override."""
        return self._open_quietly(item) if is_whole_object(item) else None

    def _open_quietly(self, item: S3BucketKeyData) -> S3Reader:
        if is_whole_object(item):
            early: S3Reader | None = self.client._early.take(item.bucket, item.key, self.reader_constructor)
            if early is not None:
                return early
        if self.pinned and item.object_info is not None:
            return self._open_pinned(item, item.object_info, self.reader_constructor or _default_reader)
        return self.client._open_reader(item.bucket, item.key, item.object_info, self.reader_constructor)

    def _open_part(self, item: S3BucketKeyData, *, again: bool = False) -> S3Reader:
        """See ``OpenPart``."""
        assert item.object_info is not None
        return self._open_pinned(item, item.object_info, _default_reader, again=again)

    def _open_pinned(
        self,
        item: S3BucketKeyData,
        listed: ObjectInfo,
        construct: S3ReaderConstructorProtocol,
        *,
        again: bool = False,
    ) -> S3Reader:
        source: ObjectSource
        if isinstance(item, RangeItem) and (item.start, item.stop) != (0, listed.size):
            source = PinnedRange(self.client._runtime, item.bucket, item.key, listed, item.start, item.stop)
        else:
            source = PinnedObject(self.client._runtime, item.bucket, item.key, listed)
        if self.cache is not None:
            source = cached(self.cache, source, self.endpoint, item, self.client, is_wrong=again)
        reader = construct(bucket=item.bucket, key=item.key, get_object_info=partial(copy, listed), get_stream=source)
        if self.cache is not None:
            self.hits.count += is_hit(reader)
        return reader


_default_reader = S3ReaderConstructor.default()


def objects_from_uris(object_uris: str | Iterable[str]) -> GetDatasetObjects:
    """Objects that are named one by one.

    Raises:
        TypeError, ValueError: a URI does not name an object.
    """
    uris = [object_uris] if isinstance(object_uris, str) else object_uris
    return partial(_given, KeyTable(S3BucketKeyData(*parse_object_uri(uri)) for uri in uris))


def objects_from_prefix(s3_uri: str, skip_archived: bool = False) -> GetDatasetObjects:
    """The objects whose keys begin with the key of the URI, with ``skip_archived`` those that can be read.

    Raises:
        TypeError, ValueError: ``s3_uri`` is not an ``s3://`` URI.
    """
    return partial(_listed, *parse_s3_uri(s3_uri), skip_archived)


class PinnedObjects:
    """What makes a dataset of a manifest's objects: a ``get_dataset_objects``.

    Attributes:
        objects: those of the manifest.
        cache: where their bytes are kept on this node, if they are.
    """

    def __init__(self, objects: ObjectTable, cache: S3Cache | None = None) -> None:
        self.objects = objects
        self.cache = cache

    def __call__(self, _: S3Client) -> Iterable[S3BucketKeyData]:
        return self.objects


def _listed(bucket: str, prefix: str, skip_archived: bool, client: S3Client) -> ListedObjects:
    worker = get_worker_info()
    return ListedObjects(
        bucket, prefix, client, skip_archived=skip_archived, warns=worker is None or not worker.id
    )  # of workers, which all list, one warns


def _given(objects: KeyTable, _: S3Client) -> Iterable[S3BucketKeyData]:
    return objects


def _workers_of_this_loader() -> int:
    worker = get_worker_info()
    return worker.num_workers if worker is not None else 0


def _import_what_workers_use() -> None:
    """Before a fork, so that no worker has to: those of a ``DataLoader`` seed NumPy, if it is there."""
    import_for_workers()
    if "numpy" in sys.modules:
        with no_fork:
            import numpy.random  # noqa: F401 (workers call it)


count_workers_by(_workers_of_this_loader)
at_fork(before=_import_what_workers_use)
