"""``S3StorageReader``: loads distributed checkpoints, whole or in part, into any number of ranks.

A plan names stored items; ``_plan`` makes requests of them, ``_load`` has these fetched over all files at a time, and
``_item`` puts the bytes where they belong. No file is read twice, and no item has a request of its own unless it is
large.
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
from s3torchconnector._transfer import ReadPolicy
from s3torchconnector._uri import display_uri, parse_object_uri
from s3torchconnector.dcp._item import StoredItem
from s3torchconnector.dcp._layout import TensorLayout
from s3torchconnector.dcp._load import Load, StoredFile
from s3torchconnector.dcp._metadata import parse_metadata
from s3torchconnector.dcp.s3_file_system import S3FileSystem
from s3torchconnector.s3reader import S3ReaderConstructorProtocol


def sizes_of(storage_data: Mapping[Any, Any]) -> dict[str, int]:
    """The files of a checkpoint by name, and their sizes in bytes, from where its metadata says that items are."""
    sizes: dict[str, int] = {}
    for info in storage_data.values():
        sizes[info.relative_path] = max(sizes.get(info.relative_path, 0), info.offset + info.length)
    return sizes


def _parsed(data: bytes, uri: str) -> Metadata:
    try:
        return parse_metadata(data)
    except Exception as error:  # whatever bytes that are no pickle lead to
        bucket, key = parse_object_uri(uri)
        text = f"{display_uri(bucket, key)} cannot be used: {error}"
        raise S3FormatError(text, bucket=bucket, key=key) from error


class S3StorageReader(FileSystemReader):
    """Loads with ``torch.distributed.checkpoint``: ``dcp.load(state_dict, storage_reader=S3StorageReader(...))``.

    Reads what ``S3StorageWriter`` wrote, and what PyTorch's ``FileSystemWriter`` wrote and was copied to S3. Large
    tensors are received straight into the memory of ``state_dict`` where they lie there as they are stored.

    Args:
        region: AWS region of the bucket.
        path: the checkpoint: ``s3://bucket/prefix``.
        s3client_config: settings of the client, see ``S3ClientConfig``. Its ``memory_budget`` bounds what is received
            into buffers; an item that is larger is received alone.
        reader_constructor: ``S3ReaderConstructor.dcp_optimized(max_gap_size)`` says how many unwanted bytes between two
            wanted ranges are fetched rather than asked around. By default small gaps are, and larger ones as long as
            they add no more than a tenth.
        endpoint: URL of the S3 server, where it is not AWS's for that region.
        kwargs: the keywords of PyTorch's ``FileSystemReader``.

    Raises:
        ValueError: the path is not an ``s3://`` URI.

    Example:
        >>> state = {"model": model.state_dict()}
        >>> dcp.load(state, storage_reader=S3StorageReader("us-east-1", "s3://bucket/step-100"))
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
        self.fs: S3FileSystem = S3FileSystem(  # type: ignore[assignment]
            region, None, s3client_config, reader_constructor, endpoint=endpoint
        )
        self._stored: dict[str, Any] = {}
        self.path: str = self.fs.init_path(path)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """What is stored; with ``rank=``, what that rank has stored on its own.

        Raises:
            S3NotFoundError: there is no complete checkpoint.
            S3FormatError: what is there describes none, or has what no checkpoint needs; the text says what to do.
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
        """A load begins; see PyTorch's ``StorageReader``."""
        super().set_up_storage_reader(metadata, is_coordinator, *args, **kwargs)
        self._stored = metadata.state_dict_metadata

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Load what the plan wants.

        Raises:
            S3Exception: an error occurred accessing S3, or a file is not what the metadata says.
            ValueError: a tensor's size is not that of its target.
        """
        items: dict[str, dict[tuple[int, int], StoredItem]] = {}
        for wanted in plan.items:
            info = self.storage_data[wanted.storage_index]
            of_file = items.setdefault(info.relative_path, {})
            item = of_file.get((info.offset, info.length))
            if item is None:
                item = StoredItem(info, getattr(self, "transforms", None), self._expected(wanted.storage_index))
                of_file[info.offset, info.length] = item
            item.wanted.append(wanted)
        sizes = sizes_of(self.storage_data)
        files = [
            StoredFile(*parse_object_uri(self.fs.concat_path(self.path, name)), sizes[name], list(of_file.values()))
            for name, of_file in items.items()
        ]
        Load(self.fs._client._runtime(), planner, self._max_gap()).run(files)
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def _expected(self, index: MetadataIndex) -> TensorLayout | None:
        """What the metadata says of a stored tensor; None for what is none, or where it says nothing."""
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
        policy = constructor.keywords.get("policy") if isinstance(constructor, partial) else None
        return policy.max_gap if isinstance(policy, ReadPolicy) else None

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether it is an ``s3://`` URI."""
        return S3FileSystem.validate_checkpoint_id(checkpoint_id)
