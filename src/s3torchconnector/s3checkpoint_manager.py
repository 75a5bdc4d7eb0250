"""``S3CheckpointManager``: numbered checkpoints below one prefix. It saves, finds, keeps and deletes them.

A save stores its data under names that no earlier save used, then a manifest by one PUT. That is the commit, for one
process (``torch.save``) and for ranks (``torch.distributed.checkpoint``) alike. A checkpoint exists if and only if it
has a manifest. No pointer says which one is the latest, so no pointer can be stale.
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
from s3torchconnector._checkpoint_manager._saves import Saves
from s3torchconnector._checkpoint_manager._snapshot import Snapshot
from s3torchconnector._checkpoint_manager._store import Store
from s3torchconnector._checkpoint_manager._upkeep import Leftovers, clean, verify
from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3NotFoundError
from s3torchconnector._late_imports import no_fork
from s3torchconnector._ranks import BackgroundGroup, by_first, gathered, has_ranks, in_all, is_first
from s3torchconnector._s3client import S3Client
from s3torchconnector._torch_archives import save_archive
from s3torchconnector._transfer import PutObjectStream, start_over_if_refused

__all__ = ["S3CheckpointManager"]

_STATE = "state.pt"


class S3CheckpointManager:
    """Numbered checkpoints below ``uri``. Each exists as a whole or not at all, even if a save is interrupted.

    In a job of several ranks (``torch.distributed`` is initialised), all ranks call ``save``, ``save_async``,
    ``latest`` and ``load``, and each stores and loads its share by ``torch.distributed.checkpoint``. One rank calls the
    other methods. Only one job at a time may save below the same ``uri``. Every method raises an ``S3Exception`` if S3
    refuses it or cannot be reached.

    Args:
        uri: where the checkpoints are, ``s3://bucket/prefix``. Step 100 is below ``<uri>/step-0000000100/``.
        region: region of the bucket, for example ``"us-east-1"``.
        endpoint: URL of the S3 server. By default the one that the environment or the AWS configuration names, and if
            there is none, AWS's for the region.
        s3client_config: settings of the client, see ``S3ClientConfig``.
        keep_last: how many of the newest checkpoints to keep, at least 1. A save deletes the older ones after its
            commit. The newest are those committed last: if a run goes back from step 3000 to step 2000, its next
            checkpoint replaces the one committed first, whatever its step. None keeps all.
        keep_every: steps that are divisible by it are never deleted.

    Raises:
        TypeError: ``uri`` is not a string.
        ValueError: ``uri`` is not an ``s3://`` URI, ``keep_last`` or ``keep_every`` is not a positive number, or the
            region cannot be used.

    Example:
        >>> import torch
        >>> from s3torchconnector import S3CheckpointManager
        >>> model = torch.nn.Linear(3, 1)
        >>> manager = S3CheckpointManager("s3://my-bucket/run-1", "us-east-1", keep_last=2)
        >>> for step in (100, 200, 300):
        ...     manager.save(step, model.state_dict())
        >>> manager.steps(), manager.latest()
        ([200, 300], 300)
        >>> model.load_state_dict(manager.load())
        <All keys matched successfully>
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
                raise ValueError(f"{name} must be None or a whole number of at least 1: {name}={value!r}")
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
        """List the committed steps, in ascending order."""
        return sorted(self._store.commits())

    def latest(self) -> int | None:
        """Return the step that was committed last, or None if there is none. All ranks get what rank 0 sees.

        It need not be the largest step: a run that went back to an earlier one has committed smaller steps since.
        """
        return by_first(self._store.latest)

    # -- saving -------------------------------------------------------------------------------------------------------

    def save(self, step: int, state_dict: Mapping[str, Any]) -> None:
        """Store a checkpoint, commit it, then delete those that are not kept any longer.

        A step that exists is replaced at the moment of the commit. If two jobs save one step at the same time, one of
        them is refused. What one process saves is a file for ``torch.load``. (Its records have no CRC-32, because the
        manifest has a checksum of the whole file.)

        Args:
            step: its number, 0 or more.
            state_dict: what ``torch.save`` takes; in a job of ranks, what ``dcp.save`` takes.

        Raises:
            TypeError, ValueError: ``step`` is not such a number.
            S3ObjectChangedError: another job has committed this step in the meantime. This save is not committed.
            S3Exception: the save is not committed. What was committed before still is.
        """
        by_ranks = _distributed() if has_ranks() else None  # first, since no lock should be held during an import
        with self._saves.one_at_a_time():
            path = self._new_path(step)
            if by_ranks is None:
                self._save_alone(step, path, partial(save_archive, state_dict))
                return
            by_ranks.save_ranks(self._store.client, self._store.address(step, path), state_dict)
            by_first(lambda: self._commit_ranks(step, path))

    def save_async(self, step: int, state_dict: Mapping[str, Any]) -> Future[None]:
        """Save in the background: as ``save``, but return when the state is copied, so that training may change it.

        Saves are carried out one after the other. This waits until the previous save has ended, so that there is only
        one copy of the state at a time. In a job of ranks, the checkpoint is committed when the future of rank 0 is
        done; the ranks use a process group (gloo) of the manager's own.

        Args:
            step: its number, 0 or more.
            state_dict: as for ``save``.

        Returns:
            A future, whose ``result()`` raises what ``save`` would have raised. An error is also logged.

        Raises:
            TypeError, ValueError: ``step`` is not such a number.
            Exception: the state could not be copied, for example because it cannot be pickled.
        """
        by_ranks = _distributed() if has_ranks() else None
        with self._saves.one_at_a_time():
            path = self._new_path(step)
            if by_ranks is None:
                store = Snapshot(state_dict).store
                return self._saves.in_background(step, partial(self._save_alone, step, path, store))
            uri, group = self._store.address(step, path), self._group.get()
            save = by_ranks.copy_and_save(self._store.client, uri, state_dict, group)
            return self._saves.in_background(step, partial(self._save_and_commit, step, path, save))

    def _new_path(self, step: int) -> str:
        """A folder that no earlier save used, so that nothing committed is touched."""
        in_all(lambda: check_step(step))
        proposed = gathered((step, f"{uuid.uuid4().hex[:16]}/"))
        steps = [each for each, _ in proposed]
        if len(set(steps)) > 1:
            raise ValueError(f"all ranks of a job must save the same step, but they were given {steps}")
        return proposed[0][1]

    def _save_alone(self, step: int, path: str, store: Callable[[PutObjectStream], int]) -> None:
        name = f"{path}{_STATE}"
        key = self._store.key(step, name)

        def store_in_new_upload() -> tuple[int, str | None]:
            stream = self._store.client.put_object(self._store.bucket, key, summed=True).stream
            stream.show_progress()
            return store(stream), stream.checksum

        stored = start_over_if_refused(store_in_new_upload)
        self._store.commit(step, "torch", path, {name: stored})
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
            step: its number; None loads the latest.
            state_dict: what to load into. Required for a checkpoint that ranks saved, and only for that.
            map_location, weights_only: those of ``torch.load``, for a checkpoint that one process saved.

        Returns:
            The state. For a checkpoint that ranks saved, ``state_dict``, which is filled.

        Raises:
            S3NotFoundError: (a ``FileNotFoundError``) the step is not committed, or no step is.
            ValueError: ``state_dict`` is missing, or given for a checkpoint that one process saved.
        """
        manifest = by_first(lambda: self._manifest(step))
        in_all(lambda: check_format(manifest, state_dict))
        if state_dict is None:
            with self._store.open(manifest.step, f"{manifest.path}{_STATE}") as reader:
                return torch.load(cast(IO[bytes], reader), map_location=map_location, weights_only=weights_only)
        _distributed().load_ranks(self._store.client, self._store.address(manifest.step, manifest.path), state_dict)
        return state_dict

    def _manifest(self, step: int | None) -> Manifest:
        chosen = self._store.latest() if step is None else step
        if chosen is None:
            raise S3NotFoundError(f"there is no committed checkpoint at {self.uri}", bucket=self._store.bucket)
        return self._store.manifest(chosen)

    # -- upkeep -------------------------------------------------------------------------------------------------------

    def delete(self, step: int) -> None:
        """Delete a checkpoint, its manifest first. It is no error if there is none.

        If the step is being saved in the background, this waits for the end of the save.
        After an error, ``clean`` finds what remains without a manifest.
        """
        self._saves.wait_for(step)
        self._store.delete(step)

    def verify(self, step: int) -> None:
        """Check that every object of a checkpoint is there and undamaged.

        Each object is compared with the manifest by size and ETag, then read, and compared with the checksum that S3
        keeps of it, if there is one. What one process saved is also compared with the checksum of what was written.
        This takes as long as loading the whole checkpoint in one process.

        Raises:
            S3FormatError: (a ``ValueError``) the checkpoint is damaged. The text names every object concerned.
            S3NotFoundError: (a ``FileNotFoundError``) the step is not committed.
        """
        verify(self._store, step)

    def clean(self, dry_run: bool = True, *, min_age: float = 0.0) -> Leftovers:
        """Find, or delete, what interrupted saves left below ``uri``: objects of no checkpoint, unfinished uploads.

        Call it while nothing is being saved, or with a ``min_age`` that is longer than a save takes: what a save has
        stored so far looks the same. (Saves delete what they replace, but nothing that other saves left.) Steps whose
        manifest cannot be read are left alone, and the log has a warning.

        Args:
            dry_run: True only finds; False deletes.
            min_age: seconds since an object was stored, or an upload begun, by S3's clock. Younger ones are left alone.

        Returns:
            What was found: lists of URIs, named ``objects`` and ``uploads``.
        """
        return clean(self._store, dry_run=dry_run, min_age=min_age)

    def close(self) -> None:
        """Wait for saves in the background, then end threads and close connections. The manager can be used again."""
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
