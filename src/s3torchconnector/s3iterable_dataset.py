"""``S3IterableDataset``: objects in order, as fast as they can arrive."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch.distributed
from torch.utils.data import IterableDataset, get_worker_info

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._dataset_source import (
    DatasetSource,
    GetDatasetObjects,
    Transform,
    identity,
    objects_from_prefix,
    objects_from_uris,
)
from s3torchconnector._sharding import Place, shard
from s3torchconnector.s3reader import S3ReaderConstructorProtocol


class S3IterableDataset(IterableDataset[Any]):
    """An IterableStyle dataset created from S3 objects.

    To create an instance of S3IterableDataset, you need to use from_prefix or from_objects methods.

    While one sample is being used, the next objects are on their way. The transform runs in the iterating thread, in
    order, and sees a reader that already holds its object's bytes or is receiving them.
    """

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
        enable_sharding: bool = False,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        look_ahead: int | None = None,
    ) -> S3IterableDataset:
        """Returns an instance of S3IterableDataset using the S3 URI(s) provided.

        Args:
            object_uris: S3 URI of the object(s) desired.
            region: AWS region of the S3 bucket where the objects are stored.
            endpoint: AWS endpoint of the S3 bucket where the objects are stored.
            transform: Optional callable which is used to transform an S3Reader into the desired type.
            s3client_config: Optional S3ClientConfig with parameters for S3 client.
            enable_sharding: If True, shard the dataset across ranks and DataLoader workers: each sample goes to
                exactly one of them. If False (default), each worker loads the entire dataset independently.
            reader_constructor: Optional way of reading, see S3ReaderConstructor.
            look_ahead: most objects on their way before they are asked for; by default as many as
                ``throughput_target_gbps`` can use. 0 switches it off.

        Returns:
            An IterableStyle dataset created from S3 objects.

        Raises:
            TypeError, ValueError: a URI does not name an object.
        """
        return cls(
            region, objects_from_uris(object_uris), endpoint, transform=transform, s3client_config=s3client_config,
            enable_sharding=enable_sharding, reader_constructor=reader_constructor, **_if_given(look_ahead=look_ahead),
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
        enable_sharding: bool = False,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        look_ahead: int | None = None,
    ) -> S3IterableDataset:
        """Returns an instance of S3IterableDataset using the S3 URI provided.

        Args:
            s3_uri: An S3 URI (prefix) of the object(s) desired. Objects matching the prefix will be included in the
                returned dataset; empty objects whose key ends with ``/`` (directory markers) are not.
            region: AWS region of the S3 bucket where the objects are stored.
            endpoint: AWS endpoint of the S3 bucket where the objects are stored.
            transform: Optional callable which is used to transform an S3Reader into the desired type.
            s3client_config: Optional S3ClientConfig with parameters for S3 client.
            enable_sharding: If True, shard the dataset across ranks and DataLoader workers: each sample goes to
                exactly one of them. If False (default), each worker loads the entire dataset independently.
            reader_constructor: Optional way of reading, see S3ReaderConstructor.
            look_ahead: most objects on their way before they are asked for; by default as many as
                ``throughput_target_gbps`` can use. 0 switches it off.

        Returns:
            An IterableStyle dataset created from S3 objects.

        Raises:
            TypeError, ValueError: ``s3_uri`` is not an S3 URI.
            S3Exception: An error occurred accessing S3 (when iterating).
        """
        return cls(
            region, objects_from_prefix(s3_uri), endpoint, transform=transform, s3client_config=s3client_config,
            enable_sharding=enable_sharding, reader_constructor=reader_constructor, **_if_given(look_ahead=look_ahead),
        )  # fmt: skip

    def __iter__(self) -> Iterator[Any]:
        """The transformed samples, in order.

        Leaving the loop, or an error in it, gives up what is on its way. An object that cannot be read raises where
        its transform reads it.
        """
        items = self._source.objects()
        if self._enable_sharding:
            items = shard(items, self._place())
        return self._source.samples(items, self._look_ahead)

    def _place(self) -> Place:
        """Which share is this process's, as things stand when iteration starts."""
        worker = get_worker_info()
        rank, world_size = _process_group_rank() or self._rank_of_parent(worker is not None) or _environment_rank()
        return Place(rank, world_size) if worker is None else Place(rank, world_size, worker.id, worker.num_workers)

    def _rank_of_parent(self, in_worker: bool) -> tuple[int, int] | None:
        return self._pickled_rank if in_worker else None

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker has no process group: it is told its parent's rank, as of now, when iteration starts.
        return {**self.__dict__, "_pickled_rank": _process_group_rank()}


def _if_given(**options: int | None) -> dict[str, Any]:
    """Those that are not None: subclasses written for 1.5.0 have constructors that know no others."""
    return {name: value for name, value in options.items() if value is not None}


def _process_group_rank() -> tuple[int, int] | None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return None


def _environment_rank() -> tuple[int, int]:
    """What torchrun says, https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
