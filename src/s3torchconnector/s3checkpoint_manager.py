"""``S3CheckpointManager``: numbered checkpoints below one prefix; saves, finds, keeps and removes them.

A save stores data under names that no earlier save used, then a manifest by one PUT: that is the commit, for one
process (``torch.save``) and for ranks (``torch.distributed.checkpoint``) alike. What is there is what has a manifest;
no pointer says which is the latest, so none can be stale.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from types import ModuleType
from typing import IO, Any, cast

import torch

from s3torchconnector._checkpoint_manager._manifest import Manifest, check_format, check_step
from s3torchconnector._checkpoint_manager._ranks import BackgroundGroup, by_first, gathered, has_ranks, in_all, is_first
from s3torchconnector._checkpoint_manager._saves import Saves
from s3torchconnector._checkpoint_manager._snapshot import Snapshot
from s3torchconnector._checkpoint_manager._store import Store
from s3torchconnector._checkpoint_manager._upkeep import Leftovers, clean, verify
from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3NotFoundError
from s3torchconnector._late_imports import no_fork
from s3torchconnector._s3client import S3Client
from s3torchconnector._torch_archives import save_archive
from s3torchconnector._transfer import PutObjectStream

_STATE = "state.pt"


class S3CheckpointManager:
    """Numbered checkpoints below ``uri``: each is there whole, or not at all, whenever a save is interrupted.

    In a job of several ranks (``torch.distributed`` initialised), ``save``, ``save_async``, ``latest``, ``load`` are
    called by all of them, and each stores and loads its share with ``torch.distributed.checkpoint``; the rest is for
    one of them. Only one job at a time may save below the same ``uri``.

    Args:
        uri: where the checkpoints go, ``s3://bucket/prefix``; step 100 lies under ``<uri>/step-0000000100/``.
        region: AWS region of the bucket.
        endpoint: URL of the S3 server, where it is not AWS's for that region.
        s3client_config: settings of the client, see ``S3ClientConfig``.
        keep_last: how many of the newest checkpoints to keep, at least 1; older ones are deleted when a new one is
            committed. The newest are those that were committed last: where a run goes back to step 2000 of 3000, its
            next checkpoint takes the place of the oldest, whichever step that is. None keeps all.
        keep_every: steps divisible by it are kept for ever.

    Raises:
        TypeError, ValueError: ``uri``, ``keep_last`` or ``keep_every`` cannot be.

    Example:
        >>> manager = S3CheckpointManager("s3://bucket/run-1", "us-east-1", keep_last=3, keep_every=1000)
        >>> if manager.latest() is not None:
        ...     model.load_state_dict(manager.load())
        >>> manager.save(step, model.state_dict())
    """

    def __init__(
        self,
        uri: str,
        region: str,
        *,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
        keep_last: int | None = None,
        keep_every: int | None = None,
    ) -> None:
        for name, value in (("keep_last", keep_last), ("keep_every", keep_every)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a whole number from 1 on, or None: {name}={value!r}")
        self.uri = uri
        self.region = region
        self.endpoint = endpoint
        self.keep_last = keep_last
        self.keep_every = keep_every
        self._store = Store(uri, S3Client(region, endpoint=endpoint, s3client_config=s3client_config))
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._saves = Saves()
        self._group = BackgroundGroup()

    # -- what is there ------------------------------------------------------------------------------------------------

    def steps(self) -> list[int]:
        """The committed steps, in order.

        Raises:
            S3Exception: an error occurred accessing S3.
        """
        return sorted(self._store.commits())

    def latest(self) -> int | None:
        """The step that was committed last; None if there is none. All ranks get what rank 0 sees.

        In a run that went back to an earlier step, that is one of its own, and not the largest of those before.

        Raises:
            S3Exception: an error occurred accessing S3.
        """
        return by_first(self._latest)

    def _latest(self) -> int | None:
        steps = self._store.steps()
        return steps[-1] if steps else None

    # -- saving -------------------------------------------------------------------------------------------------------

    def save(self, step: int, state_dict: Mapping[str, Any]) -> None:
        """Store a checkpoint, commit it, then delete those that need not be kept any more.

        A step that is there already is replaced when the new one is committed. Of two jobs that save one step at the
        same time, one is refused. What one process saves is a file for ``torch.load``, whose records have no CRC-32:
        the checksum of all of it is in the manifest.

        Args:
            step: its number, from 0 on.
            state_dict: whatever ``torch.save`` takes; in a job of ranks what ``dcp.save`` takes.

        Raises:
            TypeError, ValueError: ``step`` cannot be.
            S3ObjectChangedError: another job has committed the step meanwhile; this one is not committed.
            S3Exception: it was not committed; what was there still is.
        """
        by_ranks = _distributed() if has_ranks() else None  # before its turn: no lock during an import
        with self._saves.turn():
            path = self._new_path(step)
            if by_ranks is None:
                self._save_alone(step, path, partial(save_archive, state_dict))
                return
            by_ranks.save_ranks(self._store.client, self._store.address(step, path), state_dict)
            by_first(lambda: self._commit_ranks(step, path))

    def save_async(self, step: int, state_dict: Mapping[str, Any]) -> Future[None]:
        """``save`` in the background, of the same; when this returns, training may go on to change the state.

        Saves are carried out one after the other: if the one before is still under way, this waits for its end, so that
        there is one copy of the state at a time. In a job of ranks, which use a process group (gloo) of the manager's
        own for it, the checkpoint is committed when the future of rank 0 is done.

        Returns:
            A future, whose ``result()`` raises what ``save`` would have; that is logged as well.

        Raises:
            TypeError, ValueError: ``step`` cannot be.
            Exception: the state cannot be copied, which for one process is what pickling it raises.
        """
        by_ranks = _distributed() if has_ranks() else None
        with self._saves.turn():
            path = self._new_path(step)
            if by_ranks is None:
                store = Snapshot(state_dict).store
                return self._saves.in_background(step, partial(self._save_alone, step, path, store))
            uri, group = self._store.address(step, path), self._group.get()
            save = by_ranks.copied(self._store.client, uri, state_dict, group)
            return self._saves.in_background(step, partial(self._save_and_commit, step, path, save))

    def _new_path(self, step: int) -> str:
        """The folder of a new save: no earlier one used it, so that nothing committed is touched."""
        in_all(lambda: check_step(step))
        proposed = gathered((step, f"{uuid.uuid4().hex[:16]}/"))
        steps = [each for each, _ in proposed]
        if len(set(steps)) > 1:
            raise ValueError(f"the ranks of a job save one step together, and were given {steps}")
        return proposed[0][1]

    def _save_alone(self, step: int, path: str, store: Callable[[PutObjectStream], int]) -> None:
        name = f"{path}{_STATE}"
        stream = self._store.client.put_object(self._store.bucket, self._store.key(step, name), summed=True)
        size = store(stream)
        self._store.commit(step, "torch", path, {name: (size, stream.checksum)})
        self._retain(step)

    def _save_and_commit(self, step: int, path: str, save: Callable[[], object]) -> None:
        save()
        if is_first():
            self._commit_ranks(step, path)

    def _commit_ranks(self, step: int, path: str) -> None:
        sizes = _distributed().sizes_of_files(self._store.client, self._store.address(step, path))
        self._store.commit(step, "dcp", path, {f"{path}{name}": (size, None) for name, size in sizes.items()})
        self._retain(step)

    def _retain(self, saved: int) -> None:
        if self.keep_last is not None:
            self._store.retain(self.keep_last, self.keep_every, saved)

    # -- loading ------------------------------------------------------------------------------------------------------

    def load(
        self,
        step: int | None = None,
        *,
        state_dict: dict[str, Any] | None = None,
        map_location: Any = None,
        weights_only: bool | None = None,
    ) -> Any:
        """Load a checkpoint.

        Args:
            step: which one; None for the latest.
            state_dict: what to load into, for a checkpoint that ranks saved (by as many ranks as there are now).
            map_location, weights_only: as ``torch.load`` takes them, for a checkpoint that one process saved.

        Returns:
            The state; for a checkpoint that ranks saved ``state_dict``, filled.

        Raises:
            S3NotFoundError: (a ``FileNotFoundError``) it is not committed, or there is none at all.
            ValueError: ``state_dict`` is missing, or given for a checkpoint that one process saved.
            S3Exception: an error occurred accessing S3.
        """
        manifest = by_first(lambda: self._manifest(step))
        in_all(lambda: check_format(manifest, state_dict))
        if state_dict is None:
            key = self._store.key(manifest.step, f"{manifest.path}{_STATE}")
            with self._store.client.get_object(self._store.bucket, key) as reader:
                return torch.load(cast(IO[bytes], reader), map_location=map_location, weights_only=weights_only)
        _distributed().load_ranks(self._store.client, self._store.address(manifest.step, manifest.path), state_dict)
        return state_dict

    def _manifest(self, step: int | None) -> Manifest:
        chosen = self._latest() if step is None else step
        if chosen is None:
            raise S3NotFoundError(f"there is no committed checkpoint at {self.uri}", bucket=self._store.bucket)
        return self._store.manifest(chosen)

    # -- upkeep -------------------------------------------------------------------------------------------------------

    def delete(self, step: int) -> None:
        """Delete a checkpoint, its manifest first; one that is not there is deleted already.

        One that is being saved in the background is deleted when that has ended.

        Raises:
            S3Exception: an error occurred accessing S3. What is left is no checkpoint any more, see ``clean``.
        """
        self._saves.join(step)
        self._store.delete(step)

    def verify(self, step: int) -> None:
        """Check that every object of a checkpoint is there, of its length and with its content.

        Every object is compared by length and ETag with what was committed, then read and compared with the checksum
        that S3 keeps of it, if it does, and what one process saved with the checksum of what was written. That takes
        as long as to load all of it in one process.

        Raises:
            S3FormatError: (a ``ValueError``) it is damaged; the text names every object concerned.
            S3NotFoundError: it is not committed.
            S3Exception: an error occurred accessing S3.
        """
        verify(self._store, step)

    def clean(self, dry_run: bool = True, *, min_age: float = 0.0) -> Leftovers:
        """Find what interrupted saves left below ``uri``: objects of no checkpoint, and unfinished multipart uploads.

        Call it when nothing is being saved, or with a ``min_age`` that is longer than a save takes: what a save has
        stored so far looks the same. Saves delete what they replace, and nothing that others left. Steps whose manifest
        cannot be read are left alone, with a warning in the log.

        Args:
            dry_run: only tell; with False, delete it.
            min_age: seconds since it was stored, or begun, by S3's clock.

        Returns:
            What is, or was, there: lists of URIs, as ``objects`` and ``uploads``.

        Raises:
            S3Exception: an error occurred accessing S3.
        """
        return clean(self._store, dry_run=dry_run, min_age=min_age)

    def close(self) -> None:
        """Wait for saves in the background, end threads and close connections. The manager can be used again."""
        self._saves.close()
        self._store.client.close()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_saves", "_group")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_afresh()

    def __repr__(self) -> str:
        return f"S3CheckpointManager({self.uri!r}, {self.region!r})"


def _distributed() -> ModuleType:
    with no_fork:
        from s3torchconnector._checkpoint_manager import _distributed  # here: it imports torch.distributed.checkpoint
    return _distributed
