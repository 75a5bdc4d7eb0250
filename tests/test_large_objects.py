"""Objects of gigabytes: every byte right, memory within the budget."""

from __future__ import annotations

import hashlib

import pytest

from s3torchconnector import S3Writer
from s3torchconnector._config import MIB
from s3torchconnector._s3client import S3Client
from s3torchconnector.testing import S3Server

_BLOCKS = 2048  # of 1 MiB


def _block(number: int) -> bytes:
    return number.to_bytes(8, "big") * (MIB // 8)


@pytest.mark.slow
def test_two_gibibytes_are_saved_and_streamed_back(s3_server: S3Server, bucket: str) -> None:
    written, read = hashlib.blake2b(), hashlib.blake2b()
    with S3Client(s3_server.region, endpoint=s3_server.endpoint) as client:
        budget = client.runtime().budget
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
