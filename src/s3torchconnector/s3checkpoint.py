"""``S3Checkpoint``: files for ``torch.load`` and ``torch.save``, and safetensors files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._late_imports import no_fork
from s3torchconnector._s3client import S3Client
from s3torchconnector._uri import parse_object_uri, parse_s3_uri  # noqa: F401 (1.5.0 has the latter here)
from s3torchconnector.s3reader import S3Reader, S3ReaderConstructorProtocol
from s3torchconnector.s3reader._shown import shown
from s3torchconnector.s3writer import S3Writer

if TYPE_CHECKING:
    from s3torchconnector._write_options import S3WriteOptions
else:  # for typing.get_type_hints; programs that only read need not wait for the import
    S3WriteOptions = Any

__all__ = ["S3Checkpoint"]


class S3Checkpoint:
    """Checkpoints as single objects: opens them as files for ``torch.load`` and ``torch.save``.

    It also loads and saves safetensors files. ``S3CheckpointManager`` numbers checkpoints, and keeps the newest.

    Args:
        region: region of the bucket, for example ``"us-east-1"``.
        endpoint: URL of the S3 server. By default the one that the environment or the AWS configuration names, and if
            there is none, AWS's for the region.
        s3client_config: settings of the client, see ``S3ClientConfig``.
        reader_constructor: how objects are read, see ``S3ReaderConstructor``.

    Raises:
        S3ConfigurationError: (a ``ValueError``) the region cannot be used.

    Example:
        >>> import torch
        >>> from s3torchconnector import S3Checkpoint
        >>> model, checkpoint = torch.nn.Linear(3, 1), S3Checkpoint(region="us-east-1")
        >>> with checkpoint.writer("s3://my-bucket/epoch-1.pt") as writer:
        ...     torch.save(model.state_dict(), writer)
        >>> with checkpoint.reader("s3://my-bucket/epoch-1.pt") as reader:
        ...     model.load_state_dict(torch.load(reader))
        <All keys matched successfully>
    """

    def __init__(
        self,
        region: str,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
    ) -> None:
        self.region = region
        self.endpoint = endpoint
        self._reader_constructor = reader_constructor
        self._client = S3Client(region, endpoint=endpoint, s3client_config=s3client_config)

    def reader(self, s3_uri: str, *, version_id: str | None = None) -> S3Reader:
        """Open an object to read it. No request is made before something is read.

        Args:
            s3_uri: the object, ``s3://bucket/key``.
            version_id: the version to read, in a bucket that keeps versions; by default the latest. It is no part of
                the URI, because a key may contain any characters.

        Returns:
            The reader, a binary file.

        Raises:
            TypeError, ValueError: ``s3_uri`` does not name an object.
        """
        bucket, key = parse_object_uri(s3_uri)
        constructor = shown(self._reader_constructor)
        return self._client.get_object(bucket, key, reader_constructor=constructor, version_id=version_id)

    def writer(self, s3_uri: str, *, overwrite: bool = True, options: S3WriteOptions | None = None) -> S3Writer:
        """Open an object to write it. It is stored, as a whole, when the writer is closed.

        Use the writer in a ``with`` block: if an exception leaves it, the object stays what it was before.

        Args:
            s3_uri: the object, ``s3://bucket/key``.
            overwrite: whether an object that exists is replaced. If not, and many write to one key, exactly one
                succeeds. (This needs a server that supports ``If-None-Match``. With any other, the key is checked only
                when the writer is opened.)
            options: encryption, tags and more of this object; what they leave out is the client's, see
                ``S3WriteOptions``.

        Returns:
            The writer, a binary file.

        Raises:
            TypeError, ValueError: ``s3_uri`` does not name an object.
            S3ObjectExistsError: (a ``FileExistsError``) the object exists, and ``overwrite`` is false. Also raised by
                the writer's ``close``, if another writer was faster.
            S3Exception: an error occurred accessing S3.
        """
        bucket, key = parse_object_uri(s3_uri)
        writer = self._client.put_object(bucket, key, overwrite=overwrite, options=options)
        writer.stream.show_progress()
        return writer

    def save_safetensors(
        self,
        state_dict: Mapping[str, torch.Tensor],
        uri: str,
        metadata: Mapping[str, str] | None = None,
        *,
        options: S3WriteOptions | None = None,
    ) -> None:
        """Store tensors as a safetensors file, which appears as a whole or not at all.

        Tensors are sent from their own memory. Those with gaps, and those on other devices, are copied, one at a time.
        Tensors that share memory (tied weights) are stored once for each name, because the format requires it.

        Args:
            state_dict: dense tensors by name, on any device. Do not change them before this returns.
            uri: the object to store, ``s3://bucket/key``.
            metadata: strings by name, stored in the header.
            options: encryption, tags and more of this object, as for ``writer``.

        Raises:
            TypeError: a value is not a tensor, or one that the format cannot hold. Nothing is stored.
            ValueError: ``uri`` does not name an object.
            S3Exception: an error occurred accessing S3.

        Example:
            >>> import torch
            >>> from s3torchconnector import S3Checkpoint
            >>> checkpoint = S3Checkpoint("us-east-1")
            >>> checkpoint.save_safetensors({"bias": torch.zeros(8)}, "s3://my-bucket/model.safetensors")
        """
        with no_fork:
            from s3torchconnector import _safetensors  # here, so that programs without safetensors do not wait for it
            from s3torchconnector._transfer import start_over_if_refused

        def store() -> None:
            with self.writer(uri, options=options) as writer:
                _safetensors.save(state_dict, writer, metadata)

        start_over_if_refused(store)

    def load_safetensors(
        self,
        uri: str,
        *,
        names: Iterable[str] | Mapping[str, slice | tuple[slice, ...] | None] | None = None,
        device: torch.device | str | int = "cpu",
        version_id: str | None = None,
    ) -> dict[str, torch.Tensor]:
        """Load a safetensors file: all tensors, some of them, or parts of them.

        The wanted bytes are fetched in parallel, and received directly into the tensors' memory.

        Args:
            uri: the object to load, ``s3://bucket/key``.
            names: None loads all tensors, an iterable of names those tensors. A mapping also says what to load of each:
                a slice of the first dimension, a tuple of slices for the first dimensions, or None for all. Rows
                outside a slice are not fetched. If later dimensions are sliced too, rows below 1 MiB are fetched whole.
            device: where to put the tensors.
            version_id: the version to load, as for ``reader``.

        Returns:
            The tensors by name, each with memory of its own.

        Raises:
            S3FormatError: (a ``ValueError``) the object is not a valid safetensors file.
            KeyError, TypeError, ValueError: there is no such tensor, or ``uri`` or a slice is invalid.
            S3Exception: an error occurred accessing S3.

        Example:
            >>> import torch
            >>> from s3torchconnector import S3Checkpoint
            >>> checkpoint, uri = S3Checkpoint("us-east-1"), "s3://my-bucket/model.safetensors"
            >>> checkpoint.save_safetensors({"embedding": torch.ones(1000, 8), "bias": torch.zeros(8)}, uri)
            >>> checkpoint.load_safetensors(uri, names={"embedding": slice(0, 100)})["embedding"].shape
            torch.Size([100, 8])
        """
        with no_fork:
            from s3torchconnector import _safetensors
        bucket, key = parse_object_uri(uri)
        return _safetensors.load(self._client._runtime(), bucket, key, names, device, version_id)
