"""``S3LightningCheckpoint``: how Lightning saves, loads and removes checkpoints in S3."""

from __future__ import annotations

import sys
import warnings
from typing import IO, TYPE_CHECKING, Any, cast

import torch

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._s3client import S3Client
from s3torchconnector._uri import parse_object_uri
from s3torchconnector.lightning._fsspec import answer_through, serve_s3_paths
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


class S3LightningCheckpoint(CheckpointIO):
    """A checkpoint plugin that reads from S3 and writes to it, without files in between.

    Each checkpoint is one object, which appears whole or not at all. Lightning itself asks the file system of
    ``s3://`` paths for what is there; where ``s3fs`` is not installed, it is answered through this plugin's client
    (that of the plugin made last).

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
        with S3Writer(self._client.put_object(*_object_of(path))) as writer:
            torch.save(checkpoint, cast(IO[bytes], writer))

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
            place = "cpu" if map_location is None else map_location
            checkpoint = torch.load(cast(IO[bytes], reader), map_location=place, weights_only=weights_only)
        return cast(dict[str, Any], checkpoint)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the checkpoint at ``path``, and, where it is a directory, all objects below it.

        Raises:
            TypeError: ``path`` is not an ``s3://`` string.
            S3Exception: An error occurred accessing S3.
        """
        bucket, key = _object_of(path)
        # What is below goes first: servers that keep objects as files cannot delete a directory that is not empty.
        self._client.delete_prefix(bucket, key.rstrip("/") + "/")
        self._client.delete_object(bucket, key)

    def teardown(self) -> None:
        """End threads and close connections. The plugin can be used again."""
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
