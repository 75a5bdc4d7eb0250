"""``S3Checkpoint``: readers and writers for ``torch.load`` and ``torch.save``, and safetensors files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._late_imports import no_fork
from s3torchconnector._s3client import S3Client
from s3torchconnector._uri import parse_object_uri
from s3torchconnector.s3reader import S3Reader, S3ReaderConstructorProtocol
from s3torchconnector.s3writer import S3Writer


class S3Checkpoint:
    """A checkpoint manager for S3.

    To read a checkpoint from S3, users need to create an S3Reader by providing s3_uri of the checkpoint stored in S3.
    Similarly, to save a checkpoint to S3, users need to create an S3Writer by providing s3_uri. S3Reader and S3Writer
    implements io.BufferedIOBase therefore, they can be passed to torch.load, and torch.save.

    Args:
        region: AWS region of the bucket.
        endpoint: URL of the S3 server, where it is not AWS's for that region.
        s3client_config: settings of the client, see ``S3ClientConfig``.
        reader_constructor: how readers read, see ``S3ReaderConstructor``.

    Example:
        >>> checkpoint = S3Checkpoint(region="us-east-1")
        >>> with checkpoint.writer("s3://bucket/epoch-1.pt") as writer:
        ...     torch.save(model.state_dict(), writer)
        >>> with checkpoint.reader("s3://bucket/epoch-1.pt") as reader:
        ...     model.load_state_dict(torch.load(reader))
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

    def reader(self, s3_uri: str) -> S3Reader:
        """Creates an S3Reader from a given s3_uri.

        Args:
            s3_uri: A valid s3_uri. (i.e. s3://<BUCKET>/<KEY>)

        Returns:
            a read-only binary stream of the S3 object's contents, specified by the s3_uri.

        Raises:
            TypeError, ValueError: ``s3_uri`` does not name an object.
            S3Exception: An error occurred accessing S3.
        """
        bucket, key = parse_object_uri(s3_uri)
        return self._client.get_object(bucket, key, reader_constructor=self._reader_constructor)

    def writer(self, s3_uri: str, *, overwrite: bool = True) -> S3Writer:
        """Creates an S3Writer from a given s3_uri.

        Use it in a ``with`` block: left by an exception, the object stays what it was before.

        Args:
            s3_uri: A valid s3_uri. (i.e. s3://<BUCKET>/<KEY>)
            overwrite: whether an object that is there is replaced. If not, of many writers of a key one succeeds
                (``If-None-Match``; servers that do not know it are asked when the writer is opened, and a writer that
                comes between goes unnoticed).

        Returns:
            a write-only binary stream. The content is saved to S3 using the specified s3_uri.

        Raises:
            TypeError, ValueError: ``s3_uri`` does not name an object.
            S3ObjectExistsError: (a ``FileExistsError``) there is an object and ``overwrite`` is false. Raised here,
                and by the writer's ``close`` where another writer was faster.
            S3Exception: An error occurred accessing S3.
        """
        bucket, key = parse_object_uri(s3_uri)
        return S3Writer(self._client.put_object(bucket, key, overwrite=overwrite))

    def save_safetensors(
        self, state_dict: Mapping[str, torch.Tensor], uri: str, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Store tensors as a safetensors file, which appears whole or not at all.

        Their bytes are sent from where they are. Tensors with gaps, and those of other devices, are copied one at a
        time. Tensors that share memory (tied weights) are stored once for each name, which the format demands.

        Args:
            state_dict: dense tensors by name, on any device.
            uri: the object to store, ``s3://bucket/key``.
            metadata: strings by name, kept in the header.

        Raises:
            TypeError: something else than a tensor, or one that the format cannot hold; nothing is stored.
            ValueError: ``uri`` does not name an object.
            S3Exception: an error occurred accessing S3.
        """
        with no_fork:
            from s3torchconnector import _safetensors  # here, for the sake of those who only torch.load

        with self.writer(uri) as writer:
            _safetensors.save(state_dict, writer, metadata)

    def load_safetensors(
        self,
        uri: str,
        *,
        names: Iterable[str] | Mapping[str, slice | tuple[slice, ...] | None] | None = None,
        device: torch.device | str | int = "cpu",
    ) -> dict[str, torch.Tensor]:
        """Read a safetensors file, or some of its tensors, or some of their rows.

        One request reads the header (and small files whole); the wanted bytes come in parallel ranges, neighbours in
        one, straight into the tensors' memory. The header is checked against the file before memory is taken.

        Args:
            uri: the object to read, ``s3://bucket/key``.
            names: which tensors: all of them (None), some, or a mapping to what to read of each: a slice, a tuple of
                slices for its first dimensions, or None for all. Of a slice of the first dimension, no other row is
                read; where later dimensions are sliced too, rows of less than 1 MiB are read whole.
            device: where to put the tensors.

        Returns:
            The tensors by name, each with memory of its own.

        Raises:
            S3FormatError: (a ``ValueError``) the object is no valid safetensors file.
            KeyError: it has no tensor of such a name.
            TypeError, ValueError: ``uri``, or an index, cannot be.
            S3Exception: an error occurred accessing S3.

        Example:
            >>> checkpoint.load_safetensors(uri, names={"embed.weight": slice(0, 1000), "head.bias": None})
        """
        with no_fork:
            from s3torchconnector import _safetensors

        bucket, key = parse_object_uri(uri)
        return _safetensors.load(self._client._runtime(), bucket, key, names, device)
