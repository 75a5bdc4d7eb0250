"""``S3StorageReader``: loads distributed checkpoints, all of them or parts, into any number of ranks.

PyTorch's plan names stored items. ``_plan`` turns them into requests, ``_load`` fetches these in parallel over all
files, and ``_item`` puts the bytes where they belong. No file is read twice, and only large items have requests of
their own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner
from torch.futures import Future

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3FormatError
from s3torchconnector._progress import Progress
from s3torchconnector._transfer import ReadPolicy
from s3torchconnector._uri import display_uri, parse_object_uri
from s3torchconnector.dcp._item import StoredItem
from s3torchconnector.dcp._layout import TensorLayout
from s3torchconnector.dcp._load import Load, StoredFile
from s3torchconnector.dcp._metadata import parse_metadata
from s3torchconnector.dcp.s3_file_system import S3FileSystem, client_of
from s3torchconnector.s3reader import DCPOptimizedConstructor, S3ReaderConstructor, S3ReaderConstructorProtocol
from s3torchconnector.s3reader.dcp_optimized import policy_across

__all__ = ["S3StorageReader"]


def sizes_of(storage_data: Mapping[Any, Any]) -> dict[str, int]:
    """The files of a checkpoint, and their sizes in bytes, which follow from the places of the items."""
    sizes: dict[str, int] = {}
    for info in storage_data.values():
        sizes[info.relative_path] = max(sizes.get(info.relative_path, 0), info.offset + info.length)
    return sizes


def _parsed(data: bytes, uri: str) -> Metadata:
    try:
        return parse_metadata(data)
    except Exception as error:  # whatever unpickling any bytes may raise
        bucket, key = parse_object_uri(uri)
        text = f"{display_uri(bucket, key)} cannot be used: {error}"
        raise S3FormatError(text, bucket=bucket, key=key) from error


class S3StorageReader(FileSystemReader):
    """Loads distributed checkpoints, for ``dcp.load(state_dict, storage_reader=...)``.

    Loads what ``S3StorageWriter`` stored, and what PyTorch's ``FileSystemWriter`` stored and was copied to S3. A large
    tensor is received directly into the memory of its target in ``state_dict``, if it has the same layout there.

    Args:
        region: region of the bucket, for example ``"us-east-1"``.
        path: the checkpoint, ``s3://bucket/prefix``.
        s3client_config: settings of the client, see ``S3ClientConfig``. ``memory_budget`` limits the items that are
            received into buffers; an item that is larger is received on its own.
        reader_constructor: ``S3ReaderConstructor.dcp_optimized(max_gap_size)`` sets the largest gap between two wanted
            ranges, in bytes, that is fetched to save a request. By default gaps of up to 64 KiB are fetched, and
            larger ones as long as they add no more than a tenth. A callable of the program's own opens every file,
            one after the other.
        endpoint: URL of the S3 server. By default the one that the environment or the AWS configuration names, and if
            there is none, AWS's for the region.
        kwargs: the keywords of PyTorch's ``FileSystemReader``.

    Raises:
        ValueError: ``path`` is not an ``s3://`` URI, or the region cannot be used.

    Example:
        >>> import torch
        >>> import torch.distributed.checkpoint as dcp
        >>> from s3torchconnector.dcp import S3StorageReader, S3StorageWriter
        >>> path = "s3://my-bucket/step-100"
        >>> _ = dcp.save({"weight": torch.ones(3)}, storage_writer=S3StorageWriter("us-east-1", path))
        >>> state = {"weight": torch.zeros(3)}
        >>> dcp.load(state, storage_reader=S3StorageReader("us-east-1", path))
        >>> state["weight"]
        tensor([1., 1., 1.])
    """

    def __init__(
        self,
        region: str,
        path: str | os.PathLike[str],
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        *,
        endpoint: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(path, **kwargs)
        client = client_of(region, endpoint, s3client_config, reader_constructor, "dcp_optimized")
        self.fs: S3FileSystem = S3FileSystem(region, client, None, reader_constructor)  # type: ignore[assignment]
        self._stored: dict[str, Any] = {}
        self.path: str = self.fs.init_path(path)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Read what the checkpoint consists of; with ``rank=``, what this rank stored on its own.

        Raises:
            S3NotFoundError: (a ``FileNotFoundError``) there is no complete checkpoint.
            S3FormatError: (a ``ValueError``) ``.metadata`` does not describe a checkpoint, or names classes that are
                not allowed. The text says what to do.
            S3Exception: an error occurred accessing S3.
        """
        rank = kwargs.get("rank")
        name = ".metadata" if rank is None else f"__{rank}.metadata"
        with self.fs.create_stream(self.fs.concat_path(self.path, name), "rb") as stream:
            metadata = _parsed(stream.read(), self.fs.concat_path(self.path, name))
        if getattr(metadata, "storage_meta", None) is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = self.load_id  # type: ignore[union-attr]
        return metadata

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Prepare a load, see PyTorch's ``StorageReader``."""
        super().set_up_storage_reader(metadata, is_coordinator, *args, **kwargs)
        self._stored = metadata.state_dict_metadata

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Load the items of the plan. A ``reader_constructor`` of the program's own opens every file.

        Raises:
            S3Exception: an error occurred accessing S3, or a file differs from its description in ``.metadata``.
            ValueError: a stored tensor has another size than its target.
        """
        if S3ReaderConstructor.get_reader_type_string(self.fs._reader_constructor) == "unknown":
            return super().read_data(plan, planner)  # through create_stream, one file after the other
        items: dict[str, dict[tuple[int, int], StoredItem]] = {}
        for wanted in plan.items:
            info = self.storage_data[wanted.storage_index]
            of_file = items.setdefault(info.relative_path, {})
            item = of_file.get((info.offset, info.length))
            if item is None:
                item = StoredItem(info, getattr(self, "transforms", None), self._expected(wanted.storage_index))
                of_file[info.offset, info.length] = item
            item.wanted.append(wanted)
        sizes, runtime = sizes_of(self.storage_data), self.fs._client._runtime()
        total = sum(length for of_file in items.values() for _, length in of_file)
        with Progress(runtime.config.progress, f"loading {self.path}", total=total) as progress:
            files = [
                StoredFile(self.fs.concat_path(self.path, name), sizes[name], list(of_file.values()), progress)
                for name, of_file in items.items()
            ]
            Load(runtime, planner, self._max_gap()).load(files)
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def _expected(self, index: MetadataIndex) -> TensorLayout | None:
        """The layout of a stored tensor by the metadata; None if the item is no tensor, or not described."""
        stored = self._stored.get(index.fqn)
        if not isinstance(stored, TensorStorageMetadata):
            return None
        place = index.index if index.index is not None and index.index < len(stored.chunks) else 0
        hinted = stored.chunks[place : place + 1]
        chunks = (chunk for chunk in [*hinted, *stored.chunks] if index.offset in (None, chunk.offsets))
        chunk = next(chunks, None)
        return TensorLayout(stored.properties.dtype, tuple(chunk.sizes), 0) if chunk is not None else None

    def _max_gap(self) -> int | None:
        constructor = self.fs._reader_constructor
        if isinstance(constructor, DCPOptimizedConstructor):
            return policy_across(constructor.max_gap_size).max_gap
        policy = constructor.keywords.get("policy") if isinstance(constructor, partial) else None
        return policy.max_gap if isinstance(policy, ReadPolicy) else None

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Tell a ``reader_constructor`` that wants to know (see ``DCPS3ReaderConstructorProtocol``) what is read."""
        plan = super().prepare_local_plan(plan)
        note = getattr(self.fs._reader_constructor, "set_item_ranges_by_file", None)
        if note is not None:
            note(plan.items, self.storage_data, self.path)
        return plan

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Return whether it is an ``s3://`` URI."""
        return S3FileSystem.validate_checkpoint_id(checkpoint_id)
