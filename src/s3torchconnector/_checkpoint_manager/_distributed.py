"""Checkpoints that ranks save and load together, by ``torch.distributed.checkpoint``.

Imported only when it is needed, since importing that takes longer than the rest of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.distributed.checkpoint.staging import AsyncStager
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.stateful import Stateful
from torch.utils._pytree import tree_leaves, tree_map

from s3torchconnector._ranks import in_all
from s3torchconnector._s3client import S3Client
from s3torchconnector._tensor_memory import is_plain
from s3torchconnector.dcp import S3StorageReader, S3StorageWriter
from s3torchconnector.dcp._metadata import parse_storage_data
from s3torchconnector.dcp.s3_storage_reader import sizes_of


def save_ranks(client: S3Client, uri: str, state_dict: Mapping[str, Any]) -> None:
    """Store every rank's share below ``uri``."""
    state = in_all(lambda: _plain(state_dict))
    save(state, storage_writer=_writer(client, uri))


def copy_and_save(client: S3Client, uri: str, state_dict: Mapping[str, Any], group: Any) -> Callable[[], object]:
    """Copy the state now, and return a function that saves the copy, as ``save_ranks``, on any thread.

    Nothing else may use ``group`` until it returns. PyTorch's ``async_save`` does the same, but if one rank cannot copy
    its state, the others wait for it forever.
    """
    writer = _writer(client, uri)
    state = in_all(lambda: staged(writer, _plain(state_dict)))
    return lambda: save(state, storage_writer=writer, process_group=group)


def staged(stager: AsyncStager, state_dict: dict[str, Any]) -> dict[str, Any]:
    """A copy of the state in main memory.

    PyTorch 2.4 does not copy tensors that are already in main memory, so this function copies them.
    """
    given = set(map(_address, tree_leaves(state_dict)))

    def copied(leaf: Any) -> Any:
        return leaf.clone() if (address := _address(leaf)) and address in given else leaf

    result: dict[str, Any] = tree_map(copied, stager.stage(state_dict))
    return result


def _address(leaf: Any) -> int:
    """Where the memory of a tensor begins; 0 if it has none, or if it is not known."""
    tensor = leaf.to_local() if hasattr(leaf, "to_local") else leaf
    known = isinstance(tensor, torch.Tensor) and (is_plain(tensor) or isinstance(tensor, torch.nn.Parameter))
    return tensor.untyped_storage().data_ptr() if known else 0


def _plain(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    return {name: each.state_dict() if isinstance(each, Stateful) else each for name, each in state_dict.items()}


def sizes_of_files(client: S3Client, uri: str) -> dict[str, int]:
    """The files below ``uri`` that belong to the checkpoint, and their sizes in bytes.

    Raises:
        S3NotFoundError: the save has not ended.
    """
    reader = _reader(client, uri)
    with reader.fs.create_stream(reader.fs.concat_path(reader.path, ".metadata"), "rb") as stream:
        return sizes_of(parse_storage_data(stream.read()))


def load_ranks(client: S3Client, uri: str, state_dict: dict[str, Any]) -> None:
    """Fill every rank's ``state_dict`` from what is below ``uri``."""
    load(state_dict, storage_reader=_reader(client, uri))


def _reader(client: S3Client, uri: str) -> S3StorageReader:
    return S3StorageReader(client.region, uri, s3client_config=client.s3client_config, endpoint=client.endpoint)


def _writer(client: S3Client, uri: str) -> S3StorageWriter:
    return S3StorageWriter(client.region, uri, s3client_config=client.s3client_config, endpoint=client.endpoint)
