"""Objects of gigabytes: every byte right, memory within the budget."""

from __future__ import annotations

import hashlib

import pytest
import torch

from s3torchconnector import S3Checkpoint, S3ClientConfig, S3Writer
from s3torchconnector._config import MIB
from s3torchconnector._s3client import S3Client
from s3torchconnector.testing import S3Server
from tests.servers.proxy import RecordingProxy

_BLOCKS = 2048  # of 1 MiB
_TENSORS = 16  # of 64 MiB
_PIECE = 64 * 1024  # bytes; a read of the end of a zip file is smaller


def _block(number: int) -> bytes:
    return number.to_bytes(8, "big") * (MIB // 8)


@pytest.mark.slow
def test_two_gibibytes_are_saved_and_streamed_back(s3_server: S3Server, bucket: str) -> None:
    written, read = hashlib.blake2b(), hashlib.blake2b()
    with S3Client(s3_server.region, endpoint=s3_server.endpoint) as client:
        budget = client._runtime().budget
        most = 0
        with S3Writer(client.put_object(bucket, "large")) as writer:
            for number in range(_BLOCKS):
                writer.write(bytearray(_block(number)))
                written.update(_block(number))
                most = max(most, budget.taken)
        assert client.head_object(bucket, "large").size == _BLOCKS * MIB
        with client.get_object(bucket, "large") as reader:
            while block := reader.read(MIB):
                read.update(block)
                most = max(most, budget.taken)
        assert read.hexdigest() == written.hexdigest()
        assert most <= budget.limit + client.s3client_config.part_size
        assert budget.taken == 0


@pytest.mark.slow
@pytest.mark.parametrize("mmap", [None, False])
def test_torch_load_of_a_gibibyte_makes_few_requests(
    s3_server: S3Server, bucket: str, proxy: RecordingProxy, mmap: bool | None
) -> None:
    """With the default settings."""
    path = s3_server.folder / bucket / "large"
    torch.save({str(number): _tensor(number) for number in range(_TENSORS)}, path)
    size = path.stat().st_size
    assert size > 1024 * MIB
    checkpoint = S3Checkpoint(s3_server.region, endpoint=proxy.endpoint)
    with checkpoint.reader(f"s3://{bucket}/large") as reader:
        loaded = torch.load(reader, weights_only=True, mmap=mmap)
    assert len(loaded) == _TENSORS
    assert all(torch.equal(loaded[str(number)], _tensor(number)) for number in range(_TENSORS))
    parts = size / S3ClientConfig().part_size
    assert len([get for get in proxy.of("GET") if get.body_bytes > _PIECE]) <= parts + 3
    assert len(proxy.exchanges) <= parts + 8
    assert sum(get.body_bytes for get in proxy.of("GET")) <= size + MIB


def _tensor(number: int) -> torch.Tensor:
    """64 MiB of numbers that no other tensor has."""
    count = 64 * MIB // 8
    return torch.arange(number * count, (number + 1) * count)
