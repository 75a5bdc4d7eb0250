"""``S3LightningCheckpoint``: the plugin by which Lightning saves, loads and removes checkpoints in S3."""

from __future__ import annotations

import inspect
import logging
import sys
import warnings
from functools import partial
from typing import IO, TYPE_CHECKING, Any, cast

import torch

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3Exception, S3NotFoundError
from s3torchconnector._s3client import S3Client
from s3torchconnector._torch_archives import size_of_tensors
from s3torchconnector._transfer import start_over_if_refused
from s3torchconnector._uri import parse_s3_uri  # noqa: F401 (1.5.0 has it here)
from s3torchconnector._user_agent import UserAgent
from s3torchconnector.lightning._fsspec import serve_s3_paths, use_client
from s3torchconnector.lightning._paths import is_local, object_of
from s3torchconnector.lightning._removals import Removals
from s3torchconnector.s3reader._shown import shown

if TYPE_CHECKING:
    from pathlib import Path

    from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
    from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
else:
    # Lightning's code is distributed as one package and as two.
    try:
        from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
        from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
    except ModuleNotFoundError:
        from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
        from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

__all__ = ["S3LightningCheckpoint"]

_log = logging.getLogger(__name__)


class S3LightningCheckpoint(CheckpointIO):
    """A checkpoint plugin for Lightning's ``Trainer`` and ``Fabric`` that keeps checkpoints in S3.

    Each checkpoint is one object, which appears as a whole or not at all. For everything else, Lightning asks the file
    system of ``s3://`` paths, which uses this plugin's client too (the client of the plugin that was made last). If
    ``s3fs`` is installed, it still serves paths that a program opens with storage options. Local paths are passed to
    Lightning's own ``TorchCheckpointIO``: some strategies keep a local file for a moment.

    Within Lightning's ``AsyncCheckpointIO``, saves wait for one another on another thread. There, a checkpoint is
    removed only after a newer one has been stored. So there is always at least one, and at times there are more than
    ``save_top_k`` asks for.

    Args:
        region: region of the bucket, for example ``"us-east-1"``.
        s3client_config: settings of the client, see ``S3ClientConfig``.
        endpoint: URL of the S3 server. By default the one that the environment or the AWS configuration names, and if
            there is none, AWS's for the region.

    Raises:
        S3ConfigurationError: (a ``ValueError``) the region cannot be used.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lightning.pytorch.callbacks import ModelCheckpoint
        >>> from lightning.pytorch.demos.boring_classes import BoringModel
        >>> from lightning.pytorch.loggers import CSVLogger
        >>> from s3torchconnector.lightning import S3LightningCheckpoint
        >>> saving = ModelCheckpoint("s3://my-bucket/run-1/checkpoints", save_last=True)
        >>> trainer = Trainer(
        ...     default_root_dir="s3://my-bucket/run-1",
        ...     logger=CSVLogger("s3://my-bucket/run-1"),
        ...     max_epochs=1,
        ...     enable_progress_bar=False,
        ...     enable_model_summary=False,
        ...     plugins=[S3LightningCheckpoint("us-east-1")],
        ...     callbacks=[saving],
        ... )
        >>> trainer.fit(BoringModel())
        >>> saving.last_model_path
        's3://my-bucket/run-1/checkpoints/last.ckpt'
    """

    def __init__(self, region: str, s3client_config: S3ClientConfig | None = None, endpoint: str | None = None) -> None:
        super().__init__()
        self.region = region
        self.endpoint = endpoint
        framework = sys.modules[CheckpointIO.__module__.partition(".")[0]]
        agent = UserAgent(["lightning", framework.__version__])
        self._client = S3Client(region, endpoint=endpoint, user_agent=agent, s3client_config=s3client_config)
        self._removals = Removals()
        self._local = TorchCheckpointIO()
        self._introduce()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Store a checkpoint at ``path``.

        Args:
            checkpoint: what Lightning passes: the state of model, optimizers, loops and callbacks.
            path: the object to store, ``s3://bucket/key``. A ``pathlib.Path`` of it, which has lost a slash, is
                understood too.
            storage_options: ignored, with a warning. Settings belong in ``S3ClientConfig``.

        Raises:
            TypeError: ``path`` is neither one of ``s3://`` nor local.
            S3Exception: an error occurred accessing S3. The object at ``path`` is what it was before.
        """
        if storage_options:
            warnings.warn(
                "S3LightningCheckpoint ignores storage_options: pass it an S3ClientConfig instead", stacklevel=2
            )
        if is_local(path):
            self._local.save_checkpoint(checkpoint, path)
            return
        bucket, key = object_of(path)
        uri = f"s3://{bucket}/{key}"
        began = self._removals.save_begins(uri)
        try:
            start_over_if_refused(partial(self._store, checkpoint, bucket, key))
        except BaseException:
            self._removals.save_failed(uri)
            raise
        for each in self._removals.save_ended(uri, began):
            try:
                self._remove(each)
            except S3Exception as error:  # not raised: Lightning would take it for an error of the save
                _log.warning("the old checkpoint %s could not be removed: %s", each, error)

    def _store(self, checkpoint: dict[str, Any], bucket: str, key: str) -> None:
        with self._client.put_object(bucket, key) as writer:
            writer.stream.show_progress()
            writer.stream.expect(size_of_tensors(checkpoint))
            torch.save(checkpoint, cast(IO[bytes], writer))

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load the checkpoint at ``path``.

        Args:
            path: the object to read, ``s3://bucket/key``.
            map_location: where to put the tensors, see ``torch.load``. None means the CPU, as in Lightning's own
                plugin; otherwise all ranks would load to the device of the rank that saved.
            weights_only: see ``torch.load``. None means what Lightning's own plugin does: up to Lightning 2.5 classes
                are loaded too, which is safe for checkpoints that you trust only; from 2.6 on, PyTorch decides.

        Raises:
            TypeError: ``path`` is neither one of ``s3://`` nor local.
            S3NotFoundError: (a ``FileNotFoundError``) there is no such object.
            S3Exception: an error occurred accessing S3.
        """
        place: Any = "cpu" if map_location is None else map_location
        if is_local(path):  # before 2.6, Lightning's own plugin does not take weights_only
            chosen = {} if weights_only is None else {"weights_only": weights_only}
            return self._local.load_checkpoint(path, place, **chosen)
        bucket, key = object_of(path)
        with self._client.get_object(bucket, key, reader_constructor=shown()) as reader:
            self._removals.loaded(f"s3://{bucket}/{key}")
            if weights_only is None and not _lightning_passes_weights_only():
                weights_only = False
            checkpoint = torch.load(cast(IO[bytes], reader), map_location=place, weights_only=weights_only)
        return cast(dict[str, Any], checkpoint)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the checkpoint at ``path``, and all objects below ``path/``.

        A checkpoint that this plugin has loaded stays, unless it has been stored again since: Lightning would delete
        what a run resumed from at its first save. Delete it with ``S3Client.delete_object``.

        If this is called on another thread than the saves, or after a load and before the next save, the removal waits
        until this plugin has stored a newer checkpoint, or until ``teardown``. An error is then logged as a warning.

        Raises:
            TypeError: ``path`` is neither one of ``s3://`` nor local.
            S3Exception: an error occurred accessing S3.
        """
        if is_local(path):
            self._local.remove_checkpoint(path)
            return
        bucket, key = object_of(path)
        uri = f"s3://{bucket}/{key}"
        if self._removals.is_kept(uri):
            _log.info("%s is kept: it was loaded", uri)
            return
        if self._removals.is_direct():
            self._removals.forget(uri)
        elif not self._removals.may_go(uri, self._is_there(bucket, key)):
            _log.info("%s will be removed after a newer checkpoint has been stored", uri)
            return
        self._remove(uri)

    def _is_there(self, bucket: str, key: str) -> bool:
        try:
            self._client.head_object(bucket, key)
        except S3NotFoundError:
            pages = self._client.list_objects(bucket, key.rstrip("/") + "/", max_keys=1)
            return bool(next(pages).object_info)
        return True

    def _remove(self, path: str) -> None:
        bucket, key = object_of(path)
        # First what is below it: servers that keep objects as files cannot delete a directory that is not empty.
        self._client.delete_prefix(bucket, key.rstrip("/") + "/")
        self._client.delete_object(bucket, key)

    def teardown(self) -> None:
        """Carry out removals that wait, then end threads and close connections. The plugin can be used again.

        Raises:
            S3Exception: a checkpoint could not be removed.
        """
        try:
            for path in self._removals.remaining():
                self._remove(path)
        finally:
            self._client.close()

    def _introduce(self) -> None:
        """Serve ``s3://`` paths through this client, and make this class a plugin of both packages of Lightning."""
        use_client(self._client)
        for name in ("lightning", "lightning_fabric"):
            package = "lightning.fabric" if name == "lightning" else name
            module = sys.modules.get(f"{package}.plugins.io.checkpoint_io")
            if module is not None:
                module.CheckpointIO.register(type(self))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._introduce()


def _lightning_passes_weights_only() -> bool:
    """Whether ``Trainer.fit`` takes ``weights_only``, as from 2.6 on. Before, no program can ask for its classes."""
    return "weights_only" in inspect.signature(CheckpointIO.load_checkpoint).parameters


serve_s3_paths()
