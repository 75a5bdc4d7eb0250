"""``S3StorageWriter``: saves distributed checkpoints, which are complete or invisible.

A save writes its files under names that were never used before, then ``.metadata``, which names them, by one PUT. That
is the commit. Until then, readers find the previous ``.metadata`` and the files that it names, all untouched; after it,
the new one. Only then are the files deleted that the previous one named. Whenever a save is stopped, one of the two
checkpoints is complete. An interrupted save may leave files behind, but no ``.metadata`` names them. A commit replaces
exactly the ``.metadata`` that its save saw: of two saves at the same time, one succeeds.

A program may end during ``async_save``: the interpreter waits for PyTorch's thread, but Python's executors accept no
more work. So the threads here are this package's own.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
import uuid
from concurrent import futures
from concurrent.futures import FIRST_EXCEPTION, wait
from contextlib import closing, suppress
from functools import partial
from queue import SimpleQueue
from typing import Any

from torch.distributed.checkpoint import filesystem
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3AccessDeniedError, S3ObjectExistsError
from s3torchconnector._progress import Progress
from s3torchconnector._torch_archives import without_record_checksums
from s3torchconnector._transfer import Lane, Workers, expect_no_more_uploads, expect_uploads, start_over_if_refused
from s3torchconnector.dcp._commit import MetadataCommit, Previous, delete_files
from s3torchconnector.dcp._lend import LendingPlanner
from s3torchconnector.dcp._uploads import Uploads
from s3torchconnector.dcp.s3_file_system import S3FileSystem
from s3torchconnector.dcp.s3_prefix_strategy import DefaultPrefixStrategy, S3PrefixStrategyBase

__all__ = ["S3StorageWriter"]

_METADATA = ".metadata"


@dataclasses.dataclass(frozen=True)
class _File:
    """A file to write: its name below the checkpoint, and its items."""

    name: str
    items: list[WriteItem]


class S3StorageWriter(FileSystemWriter):
    """Saves distributed checkpoints, for ``dcp.save(state_dict, storage_writer=...)``.

    A checkpoint appears as a whole, with its ``.metadata``, when all ranks have stored their files. Until then, a
    checkpoint that was saved to the same path before stays as it is. If two saves to one path run at the same time, one
    fails. A checkpoint that is replaced while it is being loaded loses its files: load before the next save, or give
    each save a path of its own.

    Args:
        region: region of the bucket, for example ``"us-east-1"``.
        path: where the checkpoint goes, ``s3://bucket/prefix``.
        s3client_config: settings of the client, see ``S3ClientConfig``.
        prefix_strategy: what the names of the ranks' files begin with. By default ``DefaultPrefixStrategy()``.
        thread_count: number of files that each rank writes in parallel.
        endpoint: URL of the S3 server. By default the one that the environment or the AWS configuration names, and if
            there is none, AWS's for the region.
        kwargs: the keywords of PyTorch's ``FileSystemWriter``. ``overwrite=False`` refuses a path that has a
            checkpoint, also one that appears during the save. ``sync_files`` has no effect: what S3 has confirmed is
            durable.

    Raises:
        ValueError: ``path`` is not an ``s3://`` URI, or the region cannot be used.

    Example:
        >>> import torch
        >>> import torch.distributed.checkpoint as dcp
        >>> from s3torchconnector.dcp import S3StorageWriter
        >>> writer = S3StorageWriter("us-east-1", "s3://my-bucket/step-200", thread_count=2)
        >>> metadata = dcp.save({"model": torch.nn.Linear(3, 1).state_dict()}, storage_writer=writer)
        >>> sorted(metadata.state_dict_metadata)
        ['model.bias', 'model.weight']
    """

    def __init__(
        self,
        region: str,
        path: str | os.PathLike[str],
        s3client_config: S3ClientConfig | None = None,
        prefix_strategy: S3PrefixStrategyBase | None = None,
        thread_count: int = 1,
        *,
        endpoint: str | None = None,
        **kwargs: Any,
    ) -> None:
        file_system = S3FileSystem(region, s3client_config=s3client_config, endpoint=endpoint)
        kwargs.setdefault("sync_files", False)
        super().__init__(path, thread_count=thread_count, **kwargs)
        self.fs: S3FileSystem = file_system  # type: ignore[assignment]
        self.path: str = file_system.init_path(path)
        self.prefix_strategy = prefix_strategy or DefaultPrefixStrategy()
        self._is_coordinator = True
        self._rank: int | None = None
        self._ranks_alone = False
        self._previous: futures.Future[Previous] | None = None  # requested before the end of the data
        expect_uploads(self)  # of an asynchronous save with a stager, nothing more runs on the thread of its caller

    # -- planning ---------------------------------------------------------------------------------------------------

    def stage(self, state_dict: Any) -> Any:
        """Copy the state for an asynchronous save, see PyTorch's ``AsyncStager``."""
        expect_uploads(self)
        return super().stage(state_dict)

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Prepare a save, see PyTorch's ``StorageWriter``."""
        super().set_up_storage_writer(is_coordinator, *args, **kwargs)
        expect_uploads(self)
        self._is_coordinator = is_coordinator
        self._rank = kwargs.get("rank")
        self._ranks_alone = self._rank is not None and not kwargs.get("use_collectives", True)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Check that no checkpoint exists, with ``overwrite=False``.

        Raises:
            RuntimeError: there is a checkpoint.
            S3Exception: an error occurred accessing S3.
        """
        if not self.overwrite and self._commits:
            with suppress(S3AccessDeniedError):  # without permission to read; the commit will find out
                if self.fs.exists(self._commit_path()):
                    raise self._refusal()
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Tell each rank the prefix of its files."""
        ranks = [self._rank or 0] if self._ranks_alone else range(len(plans))
        return [
            dataclasses.replace(plan, storage_data=filesystem._StoragePrefix(self.prefix_strategy(rank)))
            for rank, plan in zip(ranks, plans, strict=True)
        ]

    @property
    def _commits(self) -> bool:
        """Whether ``finish`` will be called here."""
        return self._is_coordinator or self._ranks_alone

    def _refusal(self) -> RuntimeError:
        return RuntimeError(
            f"Checkpoint already exists and self.overwrite=False: {self._commit_path()}. Save to another path, or "
            "allow it with overwrite=True"
        )

    # -- the files ---------------------------------------------------------------------------------------------------

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Store this rank's items, ``thread_count`` files in parallel.

        Raises:
            S3Exception: an error occurred accessing S3. This rank's files of this save were deleted.
        """
        files = self._files(plan)
        self._previous = None
        width = max(1, self.thread_count)
        total = sum(_size_of(item) for file in files for item in file.items)
        progress = Progress(self.fs._client.s3client_config.progress, f"saving {self.path}", total=total)
        with progress, closing(Workers(width + 1)) as workers:  # not the client's, which these wait for
            aside, lane = Lane(workers, 1), Lane(workers, width)
            paths = [self.fs.concat_path(self.path, file.name) for file in files]
            uploads = Uploads(self.fs, paths, partial(self._ask_for_previous, aside), progress)
            try:
                running = [
                    lane.submit(partial(start_over_if_refused, partial(self._write_file, file, planner, uploads)))
                    for file in files
                ]
                done, _ = wait(running, return_when=FIRST_EXCEPTION)
                for each in done:
                    each.result()
                results = [result for each in running for result in each.result()]
            except BaseException:
                uploads.abort()
                workers.close()
                delete_files(self.fs, self.path, (file.name for file in files))
                expect_no_more_uploads(self)
                raise
        if not self._commits:
            expect_no_more_uploads(self)
        future: Future[list[WriteResult]] = Future()
        future.set_result(results)
        return future

    def _files(self, plan: SavePlan) -> list[_File]:
        """The plan's items as files. Their names are new, even if a planner reuses the plan of an earlier save."""
        prefix = plan.storage_data.prefix if self._rank is None else self.prefix_strategy(self._rank)
        token = uuid.uuid4().hex[:16]
        if self.single_file_per_rank:
            buckets = filesystem._split_by_size_and_type(self.thread_count, plan.items)
        else:
            buckets = [[item] for item in plan.items]
        filled = [bucket for bucket in buckets if bucket]
        suffix = filesystem.DEFAULT_SUFFIX
        return [_File(f"{prefix}{token}_{number}{suffix}", bucket) for number, bucket in enumerate(filled)]

    def _write_file(self, file: _File, planner: SavePlanner, uploads: Uploads) -> list[WriteResult]:
        """Have PyTorch serialise the items into an upload, whose parts are sent at the same time."""
        files: SimpleQueue[Any] = SimpleQueue()
        files.put((self.fs.concat_path(self.path, file.name), file.name, file.items))
        written: SimpleQueue[list[WriteResult]] = SimpleQueue()
        lending = LendingPlanner(planner)
        arguments: dict[str, Any] = {
            "create_stream": partial(uploads.create_stream, lending, size=sum(map(_size_of, file.items))),
            "file_queue": files,
            "result_queue": written,
            "planner": lending,
            "transforms": getattr(self, "transforms", None),
            "inflight_threshhold": self.per_thread_copy_ahead,
            "use_fsync": False,
            "thread_count": self.thread_count,
            "serialization_format": getattr(self, "serialization_format", None),
        }
        accepted = inspect.signature(filesystem._write_files_from_queue).parameters  # they differ between versions
        with without_record_checksums():
            filesystem._write_files_from_queue(**{name: value for name, value in arguments.items() if name in accepted})
        return written.get_nowait()

    # -- the commit ----------------------------------------------------------------------------------------------------

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Commit: store ``.metadata``, then delete the files that only the previous one named.

        Raises:
            RuntimeError: with ``overwrite=False``: there is a checkpoint. No file of this save remains.
            S3ObjectChangedError: another save has committed in the meantime: of two at the same time, one is refused.
            S3Exception: an error occurred accessing S3. The previous checkpoint is still there.
        """
        try:
            self._commit(metadata, results)
        finally:
            expect_no_more_uploads(self)

    def _commit(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        metadata.version = getattr(filesystem, "CURRENT_DCP_VERSION", None)
        metadata.storage_data = {each.index: each.storage_data for written in results for each in written}
        metadata.storage_meta = self.storage_meta()
        commit = self._commit_object()
        asked, self._previous = self._previous, None
        try:
            if self.overwrite:
                commit.replace(commit.look() if asked is None else asked.result(), metadata)
            else:
                commit.create(metadata)
        except S3ObjectExistsError as error:
            raise self._refusal() from error

    def _commit_object(self) -> MetadataCommit:
        return MetadataCommit(self.fs, self.path, self._commit_path())

    def _commit_path(self) -> str:
        return self.fs.concat_path(self.path, f"__{self._rank}{_METADATA}" if self._ranks_alone else _METADATA)

    def _ask_for_previous(self, aside: Lane) -> None:
        """Look up what the commit will replace, while the last file is being completed: that saves a round trip."""
        if self.overwrite and self._commits:
            self._previous = aside.submit(self._commit_object().look)

    # -- the rest of PyTorch's interface -------------------------------------------------------------------------------

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Return whether it is an ``s3://`` URI."""
        return S3FileSystem.validate_checkpoint_id(checkpoint_id)

    def __getstate__(self) -> dict[str, Any]:
        # A copy of a state that is kept for the next save is of no use in the process that carries out this one.
        return {**self.__dict__, "state_dict_cache": None, "_previous": None}


def _size_of(item: WriteItem) -> int:
    """Bytes of a tensor, or of the shard of one; 0 of anything else, whose size is only known when it is pickled."""
    data = item.tensor_data
    return 0 if data is None else math.prod(data.chunk.sizes) * data.properties.dtype.itemsize
