"""One object: what it is, by its content, and what is in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from s3torchconnector._cli._inspect._archives import MAGIC as ZIP
from s3torchconnector._cli._inspect._archives import describe_archive
from s3torchconnector._cli._inspect._description import Description, Tensor
from s3torchconnector._cli._inspect._remote_file import RemoteFile
from s3torchconnector._cli._output import iso_time
from s3torchconnector._config import MIB
from s3torchconnector._datasets._manifest_file import LARGEST_HEADER, MAGIC, PREFIX_SIZE, read_header
from s3torchconnector._errors import S3FormatError
from s3torchconnector._safetensors._header import LENGTH_BYTES, TORCH_NAMES, header_bytes, parse

LARGEST_JSON = 256 * MIB
_PICKLE = b"\x80"
_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that torch.save began with before archives
_METADATA = b"torch.distributed.checkpoint.metadata"
_LEGACY_TAR = (b"sys_info\0", b"pickle\0", b"storages\0", b"tensors\0")


def describe_object(file: RemoteFile) -> Description:
    """Describe an object that is a file of tensors, or a manifest.

    Raises:
        S3FormatError: it is something else, or damaged. The text names the object.
        S3Exception: an error occurred accessing S3.
    """
    describe = _kind_of(file)
    try:
        return describe(file)
    except S3FormatError as error:
        raise S3FormatError(f"{file.uri} cannot be inspected: {error}") from error


def is_pickle_of_checkpoint(file: RemoteFile) -> bool:
    """Whether it is the ``.metadata`` of a checkpoint of ``torch.distributed.checkpoint``."""
    return file.head.startswith(_PICKLE) and _METADATA in file.head


def json_of(file: RemoteFile) -> dict[str, Any] | None:
    """The JSON object that a file is; None if it is something else."""
    if not file.head.lstrip().startswith(b"{") or file.size > LARGEST_JSON:
        return None
    try:
        found = json.loads(file.read_range(0, file.size))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _kind_of(file: RemoteFile) -> Callable[[RemoteFile], Description]:
    head = file.head
    if head.startswith(ZIP):
        return describe_archive
    if head.startswith(MAGIC):
        return _describe_manifest
    if len(head) > LENGTH_BYTES and head[LENGTH_BYTES:].startswith(b"{"):
        return _describe_safetensors
    return _refuse


def _describe_safetensors(file: RemoteFile) -> Description:
    start = LENGTH_BYTES + header_bytes(file.head, file.size)
    header = file.read_range(LENGTH_BYTES, start)
    found = Description(file.uri, "safetensors", "safetensors file")
    found.tensors = [
        Tensor(entry.name, TORCH_NAMES.get(entry.dtype, entry.dtype), entry.shape, entry.stop - entry.start)
        for entry in parse(header, file.size - start)
    ]
    found.facts = {"size": file.size, "metadata": json.loads(header).get("__metadata__", {})}
    return found


def _describe_manifest(file: RemoteFile) -> Description:
    length = PREFIX_SIZE + int.from_bytes(file.head[len(MAGIC) : len(MAGIC) + 4], "little")
    if length > LARGEST_HEADER:
        raise S3FormatError(f"its header claims {length} bytes, more than any has")
    header, start = read_header(file.read_range(0, length))
    columns = header.columns_of_samples
    found = Description(file.uri, "manifest", "manifest of S3Manifest")
    found.facts = {
        "size": file.size,
        "samples": header.samples if columns is None else columns.samples,
        "samples_are": "objects" if columns is None else columns.kind,
        "objects": header.samples,
        "buckets": list(header.buckets),
        "origin": list(header.origin),
        "created": iso_time(header.created),
        "archived": header.archived,
        "fingerprint": header.fingerprint,
    }
    if file.size != start + header.data_size:
        found.problems.append(f"it has {file.size} bytes where its header says {start + header.data_size}")
    return found


def _refuse(file: RemoteFile) -> Description:
    """
    Raises:
        S3FormatError: always. It says what the object is, if that is known.
    """
    head = file.head
    kinds = "an archive of torch.save, a safetensors file, a manifest, or the .metadata of a distributed checkpoint"
    if head.startswith(_PICKLE) and head[2:].startswith(_LEGACY):
        raise S3FormatError(
            "it is in the format that torch.save wrote before PyTorch 1.6 (a pickle without a directory), whose "
            "tensors lie between each other's descriptions. Load it, and save it again"
        )
    if head[257:262] == b"ustar" and head.startswith(_LEGACY_TAR):
        raise S3FormatError(
            "it is in the format that torch.save wrote before PyTorch 0.2 (a tar file). Load it, and save it again"
        )
    if head[257:262] == b"ustar":
        raise S3FormatError("it is a tar archive. If it holds samples, make a manifest of it: s3torch manifest create")
    if head.startswith(_PICKLE):
        raise S3FormatError(f"it is a pickle, but not {kinds}")
    raise S3FormatError(f"it has {file.size} bytes and begins with {head[:16]!r}: it is not {kinds}")
