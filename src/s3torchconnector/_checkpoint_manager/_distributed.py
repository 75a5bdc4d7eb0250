"""A folder of one checkpoint that ranks save and load together, by ``torch.distributed.checkpoint``.

Imported when it is needed: that takes longer than the rest of this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from s3torchconnector._s3client import S3Client
from s3torchconnector.dcp import S3StorageReader, S3StorageWriter
from s3torchconnector.dcp.s3_storage_reader import sizes_of


def save_ranks(client: S3Client, uri: str, state_dict: Mapping[str, Any]) -> None:
    """Store every rank's share below ``uri``."""
    save(dict(state_dict), storage_writer=_writer(client, uri))


def save_ranks_async(client: S3Client, uri: str, state_dict: Mapping[str, Any], group: Any) -> Any:
    """Like ``save_ranks``, from a copy: returns a future when that is made. ``group`` is used by nothing else then."""
    return async_save(dict(state_dict), storage_writer=_writer(client, uri), process_group=group)


def sizes_of_files(client: S3Client, uri: str) -> dict[str, int]:
    """The files below ``uri`` that hold what ranks have saved there, and their sizes in bytes.

    Raises:
        S3NotFoundError: the save has not come to its end.
    """
    return sizes_of(_reader(client, uri).read_metadata().storage_data or {})


def load_ranks(client: S3Client, uri: str, state_dict: dict[str, Any]) -> None:
    """Fill every rank's ``state_dict`` from what is below ``uri``."""
    load(state_dict, storage_reader=_reader(client, uri))


def _reader(client: S3Client, uri: str) -> S3StorageReader:
    return S3StorageReader(client.region, uri, s3client_config=client.s3client_config, endpoint=client.endpoint)


def _writer(client: S3Client, uri: str) -> S3StorageWriter:
    return S3StorageWriter(client.region, uri, s3client_config=client.s3client_config, endpoint=client.endpoint)
