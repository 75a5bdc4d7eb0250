"""Checkpoints of ``torch.distributed.checkpoint``: their ``.metadata`` names everything, and is not run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from s3torchconnector._cli._inspect._description import Description, Tensor, item_size
from s3torchconnector._cli._inspect._pickles import Made, attribute, described, dtype_in, path_of, shortened, sizes_in
from s3torchconnector._cli._inspect._remote_file import RemoteFile
from s3torchconnector._errors import S3FormatError
from s3torchconnector._garbage import no_garbage_collection
from s3torchconnector._s3client import S3Client
from s3torchconnector._uri import display_uri

_METADATA = "torch.distributed.checkpoint.metadata."
METADATA_NAME = ".metadata"


def describe_checkpoint(client: S3Client, bucket: str, folder: str, file: RemoteFile) -> Description:
    """Describe a checkpoint, and compare its files with a listing.

    Args:
        client: for the listing.
        bucket, folder: where it is; the folder ends with a slash, or is empty.
        file: its ``.metadata``.

    Raises:
        S3FormatError: ``.metadata`` is something else, or damaged.
        S3Exception: an error occurred accessing S3.
    """
    try:
        data = file.read_range(0, file.size)
        with no_garbage_collection():
            tensors, others, sizes = _parsed(data)
    except S3FormatError as error:
        raise S3FormatError(f"{file.uri} cannot be inspected: {error}") from error
    uri = display_uri(bucket, folder)
    found = Description(uri, "dcp", "checkpoint of torch.distributed.checkpoint", tensors)
    found.problems += _compare(sizes, _listed(client, bucket, folder))
    found.facts = {"files": len(sizes), "size": sum(sizes.values()), "other_values": others}
    return found


def _parsed(data: bytes) -> tuple[list[Tensor], list[str], dict[str, int]]:
    """The tensors, the names of what else there is, and the files."""
    metadata = described(data)
    if path_of(metadata) != f"{_METADATA}Metadata":
        raise S3FormatError(f"it is a {path_of(metadata) or type(metadata).__name__}, no metadata of a checkpoint")
    return (*_tensors(attribute(metadata, "state_dict_metadata", 0)), _files(attribute(metadata, "storage_data", 2)))


def _tensors(described_state: Any) -> tuple[list[Tensor], list[str]]:
    """The tensors, and the names of what else there is."""
    if not isinstance(described_state, dict):
        raise S3FormatError("it does not say what the checkpoint consists of")
    tensors, others = [], []
    for name, stored in described_state.items():
        if path_of(stored) == f"{_METADATA}BytesStorageMetadata":
            others.append(str(name))
            continue
        properties = attribute(stored, "properties", 0)
        dtype, shape = dtype_in(attribute(properties, "dtype", 0)), sizes_in(attribute(stored, "size", 1))
        if dtype is None or shape is None:
            raise S3FormatError(f"it describes {str(name)[:80]!r} by a {path_of(stored)} without dtype or size")
        try:
            size = math.prod(shape) * item_size(dtype)
        except ValueError as error:
            raise S3FormatError(f"{str(name)[:80]!r} has an unknown type: {error}") from error
        tensors.append(Tensor(str(name), dtype, shape, size))
    return tensors, others


def _files(storage_data: Any) -> dict[str, int]:
    """The files by their names, with the bytes that each must have at least."""
    if not isinstance(storage_data, dict):
        raise S3FormatError("it does not say where the checkpoint's data are")
    sizes: dict[str, int] = {}
    for info in storage_data.values():
        name, offset, length = (
            attribute(info, field, place) for place, field in enumerate(("relative_path", "offset", "length"))
        )
        if not isinstance(info, Made) or not isinstance(name, str) or not type(offset) is type(length) is int:
            said = shortened(info.state if isinstance(info, Made) else info)
            raise S3FormatError(f"it names a place in its files by {path_of(info)} of {said}")
        sizes[name] = max(sizes.get(name, 0), offset + length)
    return sizes


def _listed(client: S3Client, bucket: str, folder: str) -> dict[str, int]:
    return {
        key.removeprefix(folder): size
        for page in client.list_all(bucket, folder)
        for key, size in zip(page.keys, page.sizes, strict=True)
    }


def _compare(sizes: dict[str, int], listed: dict[str, int]) -> Iterator[str]:
    for name, size in sizes.items():
        if name not in listed:
            yield f"its file {name} is missing"
        elif listed[name] < size:
            yield f"its file {name} has {listed[name]} bytes, fewer than the {size} that are used"
