"""``S3StorageWriter``: saves distributed checkpoints so that they are either complete or invisible.

A save writes its files under names that were never used, and then ``.metadata``, which names them, by one PUT: that is
the commit. Until then readers find the previous ``.metadata`` and the files that it names, all untouched; afterwards
the new one. Only then are the files deleted that the previous one named. Whatever stops a save, and whenever, one of
the two checkpoints is whole; what else an interrupted save leaves behind are files that no ``.metadata`` names.
A commit replaces exactly the ``.metadata`` that its save saw: of two saves at the same time one succeeds.

A program may end while ``async_save`` is at it: the interpreter waits for PyTorch's thread. From that moment on
Python's executors refuse work, so the threads here are this package's own.
"""

from __future__ import annotations

import dataclasses
import inspect
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
from s3torchconnector._torch_archives import without_record_checksums
from s3torchconnector._transfer import Lane, Workers, expect_no_more_uploads, expect_uploads
from s3torchconnector.dcp._commit import MetadataCommit, Previous, delete_files
from s3torchconnector.dcp._lend import LendingPlanner
from s3torchconnector.dcp._uploads import Uploads
from s3torchconnector.dcp.s3_file_system import S3FileSystem
from s3torchconnector.dcp.s3_prefix_strategy import DefaultPrefixStrategy, S3PrefixStrategyBase

_METADATA = ".metadata"


@dataclasses.dataclass(frozen=True)
class _File:
    """A file to be written: its name below the checkpoint, and what goes into it."""

    name: str
    items: list[WriteItem]


class S3StorageWriter(FileSystemWriter):
    """Saves with ``torch.distributed.checkpoint``: ``dcp.save(state_dict, storage_writer=S3StorageWriter(...))``.

    A checkpoint appears whole, with its ``.metadata``, when all ranks have stored their files. Saving to the same path
    again leaves the checkpoint that is there as it is until that moment; see the module. Of two saves to one path at
    the same time, one fails. A checkpoint whose ``.metadata`` is replaced while it is being loaded loses its files:
    load before the next save, or give each save a path of its own.

    Args:
        region: AWS region of the bucket.
        path: where the checkpoint goes: ``s3://bucket/prefix``.
        s3client_config: settings of the client, see ``S3ClientConfig``.
        prefix_strategy: names the ranks' files; ``DefaultPrefixStrategy()`` if not given.
        thread_count: files that each rank writes at a time.
        endpoint: URL of the S3 server, where it is not AWS's for that region.
        kwargs: the keywords of PyTorch's ``FileSystemWriter``. ``overwrite=False`` refuses a path with a checkpoint,
            also one that appears during the save. ``sync_files`` has no effect: what S3 has confirmed is durable.

    Raises:
        ValueError: the path is not an ``s3://`` URI.

    Example:
        >>> writer = S3StorageWriter("us-east-1", "s3://bucket/step-100", thread_count=2)
        >>> dcp.save({"model": model.state_dict()}, storage_writer=writer)
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
        self._previous: futures.Future[Previous] | None = None  # asked for before the end of the data
        expect_uploads(self)  # an asynchronous save with a stager does nothing more on the thread of its caller

    # -- planning ---------------------------------------------------------------------------------------------------

    def stage(self, state_dict: Any) -> Any:
        """An asynchronous save begins; see PyTorch's ``AsyncStager``."""
        expect_uploads(self)
        return super().stage(state_dict)

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """A save begins; see PyTorch's ``StorageWriter``."""
        super().set_up_storage_writer(is_coordinator, *args, **kwargs)
        expect_uploads(self)
        self._is_coordinator = is_coordinator
        self._rank = kwargs.get("rank")
        self._ranks_alone = self._rank is not None and not kwargs.get("use_collectives", True)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Refuse to overwrite, if told so.

        Raises:
            RuntimeError: there is a checkpoint, and ``overwrite`` is false.
        """
        if not self.overwrite and self._commits:
            with suppress(S3AccessDeniedError):  # who may only write is not told; the commit finds out
                if self.fs.exists(self._commit_path()):
                    raise self._refusal()
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Give each rank the prefix of its files."""
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
        """Store this rank's items, ``thread_count`` files at a time.

        Raises:
            S3Exception: an error occurred accessing S3; this rank's files of this save are gone again.
        """
        files = self._files(plan)
        self._previous = None
        width = max(1, self.thread_count)
        with closing(Workers(width + 1)) as workers:  # not the client's, which these wait for
            aside, lane = Lane(workers, 1), Lane(workers, width)
            uploads = Uploads(self.fs, len(files), partial(self._ask_for_previous, aside))
            try:
                running = [lane.submit(partial(self._write_file, file, planner, uploads)) for file in files]
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
        """The plan's items as files. The names are new even where a planner brings back a plan of an earlier save."""
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
        """Have PyTorch serialise the items into an upload, whose parts go out meanwhile."""
        files: SimpleQueue[Any] = SimpleQueue()
        files.put((self.fs.concat_path(self.path, file.name), file.name, file.items))
        written: SimpleQueue[list[WriteResult]] = SimpleQueue()
        lending = LendingPlanner(planner)
        arguments: dict[str, Any] = {
            "create_stream": partial(uploads.create_stream, lending),
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
        """Commit: publish ``.metadata``, then delete the files that only the one before it named.

        Raises:
            RuntimeError: a checkpoint has appeared meanwhile, and ``overwrite`` is false: no file of this save remains.
            S3ObjectChangedError: another save has committed meanwhile: of two at the same time, one is refused.
            S3Exception: an error occurred accessing S3; the previous checkpoint is still there.
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
        """While the last file is being completed, have the committing rank see what it will replace.

        A round trip less in the end. Who must not overwrite replaces nothing.
        """
        if self.overwrite and self._commits:
            self._previous = aside.submit(self._commit_object().look)

    # -- the rest of PyTorch's interface -------------------------------------------------------------------------------

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether it is an ``s3://`` URI."""
        return S3FileSystem.validate_checkpoint_id(checkpoint_id)

    def __getstate__(self) -> dict[str, Any]:
        # A staged state dict that is kept for the next save is not for the process that saves this one.
        return {**self.__dict__, "state_dict_cache": None, "_previous": None}
