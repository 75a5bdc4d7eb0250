"""``S3IterableDataset``: objects in order, as fast as they can arrive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from s3torchconnector._called_for import CalledFor, Uptake
from s3torchconnector._config import S3ClientConfig
from s3torchconnector._dataset_parameters import document
from s3torchconnector._dataset_source import (
    DatasetSource,
    GetDatasetObjects,
    PinnedObjects,
    Transform,
    identity,
    objects_from_prefix,
    objects_from_uris,
)
from s3torchconnector._datasets._resumed import check, rest, state_of
from s3torchconnector._datasets._shared_out_twice import refuse_second_sharding
from s3torchconnector._early_samples import Handed, Samples
from s3torchconnector._ranks import environment_rank, group_rank
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._s3client import S3Client
from s3torchconnector._s3dataset_common import get_objects_from_prefix, get_objects_from_uris  # noqa: F401
from s3torchconnector._sharding import Place, shard
from s3torchconnector._source_attribute import SourceAttribute
from s3torchconnector._user_agent import UserAgent  # noqa: F401 (1.5.0 has it here, and the readers)
from s3torchconnector.s3cache import S3Cache
from s3torchconnector.s3manifest import S3Manifest
from s3torchconnector.s3reader import S3Reader, S3ReaderConstructor, S3ReaderConstructorProtocol  # noqa: F401

__all__ = ["S3IterableDataset"]


@document
class S3IterableDataset(IterableDataset[Any]):
    """S3 objects as an iterable dataset: samples in order. Make one with ``from_prefix`` or ``from_objects``.

    While the program uses one sample, the next objects are being fetched. The transform runs in the iterating thread,
    in order, on a reader that already holds its object's bytes or is receiving them.

    A dataset pickles as configuration.

    Args:
        region, get_dataset_objects, endpoint, transform: described in ``_dataset_parameters``.
        s3client_config, enable_sharding, reader_constructor, look_ahead: described in ``_dataset_parameters``.

    Raises:
        ValueError: ``look_ahead`` is negative.
        S3ConfigurationError: (a ``ValueError``) the region cannot be used.

    Example:
        >>> from s3torchconnector import S3IterableDataset
        >>> dataset = S3IterableDataset.from_prefix("s3://my-bucket/images/", region="us-east-1")
        >>> for reader in dataset:
        ...     print(reader.key, len(reader.read()))
        images/0.png 10
        images/1.png 10
        images/2.png 10
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
        enable_sharding: bool = False,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        *,
        look_ahead: int | None = None,
    ) -> None:
        if look_ahead is not None and look_ahead < 0:
            raise ValueError(f"look_ahead must not be negative: look_ahead={look_ahead}")
        self._source = DatasetSource(
            region, get_dataset_objects, endpoint, transform, s3client_config, reader_constructor
        )
        self._enable_sharding = enable_sharding
        self._look_ahead = look_ahead
        self._pickled_rank: tuple[int, int] | None = None
        self._restored: Mapping[str, Any] | None = None  # where the next iteration goes on
        self._before: Mapping[str, Any] | None = None  # where the latest iteration went on
        self._handed: Handed[Any] | None = None  # what it has handed out
        self._uptake = Uptake()

    @property
    def region(self) -> str:
        """The region of the bucket."""
        return self._source.region

    @property
    def endpoint(self) -> str | None:
        """The URL of the S3 server, if one was given."""
        return self._source.endpoint

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
        enable_sharding: bool = False,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        look_ahead: int | None = None,
    ) -> S3IterableDataset:
        """Make a dataset of the objects that are named. No request is made.

        Args:
            object_uris, region, endpoint, transform: described in ``_dataset_parameters``.
            s3client_config, enable_sharding, reader_constructor, look_ahead: described in ``_dataset_parameters``.

        Raises:
            TypeError, ValueError: a URI does not name an object, or ``look_ahead`` is negative.
            S3ConfigurationError: (a ``ValueError``) the region cannot be used.
        """
        return cls(
            region, objects_from_uris(object_uris), endpoint, transform=transform, s3client_config=s3client_config,
            enable_sharding=enable_sharding, reader_constructor=reader_constructor, **_if_given(look_ahead=look_ahead),
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
        enable_sharding: bool = False,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        look_ahead: int | None = None,
        skip_archived: bool = False,
    ) -> S3IterableDataset:
        """Make a dataset of all objects whose keys begin with a prefix. They are listed when iteration starts.

        Args:
            s3_uri, region, endpoint, transform: described in ``_dataset_parameters``.
            s3client_config, enable_sharding, reader_constructor, look_ahead: described in ``_dataset_parameters``.
            skip_archived: described in ``_dataset_parameters``.

        Raises:
            TypeError, ValueError: ``s3_uri`` is not an ``s3://`` URI, or ``look_ahead`` is negative.
            S3ConfigurationError: (a ``ValueError``) the region cannot be used.
        """
        return cls(
            region, objects_from_prefix(s3_uri, skip_archived), endpoint, transform=transform,
            s3client_config=s3client_config,
            enable_sharding=enable_sharding, reader_constructor=reader_constructor, **_if_given(look_ahead=look_ahead),
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
        enable_sharding: bool = False,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        cache: S3Cache | None = None,
        look_ahead: int | None = None,
    ) -> S3IterableDataset:
        """Make a dataset of a manifest's objects. Nothing is listed, and only the listed versions are read.

        Args:
            manifest: the objects. Where they are, and how they are accessed, is known from it, unless it is given.
            region, endpoint, transform: described in ``_dataset_parameters``.
            s3client_config, enable_sharding, reader_constructor, look_ahead: described in ``_dataset_parameters``.
            cache: described in ``_dataset_parameters``.

        Raises:
            ValueError: ``look_ahead`` is negative.
        """
        region, endpoint, s3client_config = manifest._place(region, endpoint, s3client_config)
        return cls(
            region, PinnedObjects(manifest, cache), endpoint, transform=transform, s3client_config=s3client_config,
            enable_sharding=enable_sharding, reader_constructor=reader_constructor, **_if_given(look_ahead=look_ahead),
        )  # fmt: skip

    def __iter__(self) -> Iterator[Any]:
        """Yield the transformed samples, in order.

        Leaving the loop, or an error in it, cancels what is being fetched. An object that cannot be read raises its
        error in the transform that reads it.

        Raises:
            S3Exception: an error occurred listing the objects, or reading one of them.
            S3ConfigurationError: Accelerate would share out again what is sharded already.
        """
        self._refuse_second_sharding()
        self._client = self._get_client()
        items, place = (
            self._source.objects_in_order() if self._enable_sharding else self._source.objects(),
            self._share(),
        )
        self._before, self._restored = self._restored, None
        if self._before is not None:
            items = rest(items, self._before, place)
        elif self._enable_sharding:
            items = shard(items, place)
        if type(self)._get_transformed_object is S3IterableDataset._get_transformed_object:
            samples: Samples[Any] = Samples.of(self._source, items, self._look_ahead)
        else:
            calls = (
                CalledFor(self._source, item, partial(self._get_transformed_object, item), self._uptake)
                for item in items
            )
            samples = Samples(calls, [self._source], self._look_ahead, self._uptake.is_certain)
        self._handed = samples.handed
        return samples

    def state_dict(self) -> dict[str, Any]:
        """Return how far the latest iteration in this process has come, for torchdata's ``StatefulDataLoader``.

        It is for jobs that go on with the same ranks and workers; ``S3StreamingDataset`` resumes on any others.
        """
        return state_of(self._restored or self._before, None if self._restored else self._handed, self._share())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the next iteration in this process go on after what ``state`` says was handed out.

        No object is read again. A prefix is listed on from the last key.

        Raises:
            S3ConfigurationError: (a ``ValueError``) it is no state of this class, or one of another rank or worker.
        """
        self._restored = check(state, self._share())

    def _share(self) -> Place:
        return self._place() if self._enable_sharding else Place()

    def _get_client(self) -> S3Client:
        """The client. A subclass may override this to give its own."""
        return self._source.client

    def _get_transformed_object(self, bucket_key: S3BucketKeyData) -> Any:
        """The sample of one object. If a subclass overrides this, the object is on its way when it is called.

        That is so if the override opens the object by this method, or by ``get_object`` of the client.
        """
        return self._source.transform(self._source.open(bucket_key))

    def _place(self) -> Place:
        """Which share of the samples belongs to this process, at the time when iteration starts."""
        worker = get_worker_info()
        rank, world_size = group_rank() or self._rank_of_parent(worker is not None) or environment_rank()
        return Place(rank, world_size) if worker is None else Place(rank, world_size, worker.id, worker.num_workers)

    def _refuse_second_sharding(self) -> None:
        refuse_second_sharding(
            self._share().world_size, "Make it with enable_sharding=False, or leave it out of accelerator.prepare()"
        )

    def _rank_of_parent(self, in_worker: bool) -> tuple[int, int] | None:
        return self._pickled_rank if in_worker else None

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker has no process group. It is pickled when iteration starts, and told its parent's rank then.
        self._refuse_second_sharding()
        return {**self.__dict__, "_pickled_rank": group_rank(), "_before": None, "_handed": None}


def _if_given(**options: int | None) -> dict[str, Any]:
    """The options that are not None: constructors of subclasses written for 1.5.0 know no new ones."""
    return {name: value for name, value in options.items() if value is not None}
