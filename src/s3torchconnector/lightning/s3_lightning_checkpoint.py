"""``S3LightningCheckpoint``: how Lightning saves, loads and removes checkpoints in S3."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import IO, TYPE_CHECKING, Any, cast

import torch

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3Exception, S3NotFoundError
from s3torchconnector._s3client import S3Client
from s3torchconnector._uri import parse_object_uri
from s3torchconnector.lightning._fsspec import answer_through, serve_s3_paths
from s3torchconnector.lightning._removals import Removals
from s3torchconnector.s3writer import S3Writer

if TYPE_CHECKING:
    from pathlib import Path

    from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
else:
    # The same code comes as one package and as two.
    try:
        from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
    except ModuleNotFoundError:
        from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO

_log = logging.getLogger(__name__)


class S3LightningCheckpoint(CheckpointIO):
    """A checkpoint plugin that reads from S3 and writes to it, without files in between.

    Each checkpoint is one object, which appears whole or not at all. Lightning itself asks the file system of
    ``s3://`` paths for what is there; where ``s3fs`` is not installed, it is answered through this plugin's client
    (that of the plugin made last).

    Within Lightning's ``AsyncCheckpointIO``, whose saves wait for one another on another thread, a checkpoint is
    removed when a newer one is stored: there always is one, and for a while there may be more than were asked for.

    Args:
        region: AWS region of the bucket.
        s3client_config: settings of the client, see ``S3ClientConfig``.
        endpoint: URL of the S3 server, where it is not AWS's for that region.

    Example:
        >>> trainer = Trainer(
        ...     default_root_dir="s3://bucket/run-1",
        ...     plugins=[S3LightningCheckpoint("us-east-1")],
        ...     callbacks=[ModelCheckpoint(save_top_k=3, monitor="loss", save_last=True)],
        ... )
        >>> trainer.fit(model, ckpt_path="s3://bucket/run-1/checkpoints/last.ckpt")
    """

    def __init__(self, region: str, s3client_config: S3ClientConfig | None = None, endpoint: str | None = None) -> None:
        super().__init__()
        self.region = region
        self.endpoint = endpoint
        self._client = S3Client(region, endpoint=endpoint, s3client_config=s3client_config)
        self._removals = Removals()
        self._introduce()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Store a checkpoint at ``path``.

        Args:
            checkpoint: what the Trainer dumped: model, optimizers, loops, callbacks.
            path: the object to store, ``s3://bucket/key``.
            storage_options: left aside, with a warning: settings belong to ``S3ClientConfig``.

        Raises:
            TypeError: ``path`` is not an ``s3://`` string.
            S3Exception: An error occurred accessing S3; what was at ``path`` still is.
        """
        if storage_options:
            warnings.warn("S3LightningCheckpoint leaves storage_options aside: give it an S3ClientConfig", stacklevel=2)
        place = _object_of(path)
        began = self._removals.save_begins(str(path))
        try:
            with S3Writer(self._client.put_object(*place)) as writer:
                torch.save(checkpoint, cast(IO[bytes], writer))
        except BaseException:
            self._removals.save_failed(str(path))
            raise
        for each in self._removals.save_ended(str(path), began):
            try:
                self._remove(each)
            except S3Exception as error:  # this one is stored, and Lightning would take it for an error of the save
                _log.warning("the checkpoint %s need not be kept, and could not be removed: %s", each, error)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load the checkpoint at ``path``.

        Args:
            path: the object to read, ``s3://bucket/key``.
            map_location: where to put the tensors, as ``torch.load`` takes it. None means the CPU, as in Lightning's
                own plugin: else all ranks would load to the device of the one that saved.
            weights_only: as ``torch.load`` takes it.

        Raises:
            TypeError: ``path`` is not an ``s3://`` string.
            S3NotFoundError: (a ``FileNotFoundError``) there is no such object.
            S3Exception: An error occurred accessing S3.
        """
        with self._client.get_object(*_object_of(path)) as reader:
            self._removals.loaded()
            place = "cpu" if map_location is None else map_location
            checkpoint = torch.load(cast(IO[bytes], reader), map_location=place, weights_only=weights_only)
        return cast(dict[str, Any], checkpoint)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the checkpoint at ``path``, and, where it is a directory, all objects below it.

        On another thread than that of the saves, or after a load without a save since, it is put off until a newer one
        is stored by this plugin, or until ``teardown``. An error is then a warning in the log.

        Raises:
            TypeError: ``path`` is not an ``s3://`` string.
            S3Exception: An error occurred accessing S3.
        """
        place = _object_of(path)
        if self._removals.is_direct():
            self._removals.forget(str(path))
        elif not self._removals.may_go(str(path), self._is_there(*place)):
            _log.info("%s is removed when a newer checkpoint is stored", path)
            return
        self._remove(str(path))

    def _is_there(self, bucket: str, key: str) -> bool:
        try:
            self._client.head_object(bucket, key)
        except S3NotFoundError:
            pages = self._client.list_objects(bucket, key.rstrip("/") + "/", max_keys=1)
            return bool(next(pages).object_info)
        return True

    def _remove(self, path: str) -> None:
        bucket, key = _object_of(path)
        # What is below goes first: servers that keep objects as files cannot delete a directory that is not empty.
        self._client.delete_prefix(bucket, key.rstrip("/") + "/")
        self._client.delete_object(bucket, key)

    def teardown(self) -> None:
        """Remove what waits for it, end threads and close connections. The plugin can be used again."""
        try:
            for path in self._removals.remaining():
                self._remove(path)
        finally:
            self._client.close()

    def _introduce(self) -> None:
        """Let this process's Lightning know of S3, and of this class, if it is the package of the other name."""
        answer_through(self._client)
        for name in ("lightning", "lightning_fabric"):
            package = "lightning.fabric" if name == "lightning" else name
            module = sys.modules.get(f"{package}.plugins.io.checkpoint_io")
            if module is not None:
                module.CheckpointIO.register(type(self))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._introduce()


def _object_of(path: Any) -> tuple[str, str]:
    if not isinstance(path, str) or not path.lower().startswith("s3://"):
        raise TypeError(
            f"the path of a checkpoint must be a string that begins with 's3://', not {path!r} "
            f"({type(path).__name__}): os.path.normpath and pathlib.Path take a slash away"
        )
    return parse_object_uri(path)


serve_s3_paths()
