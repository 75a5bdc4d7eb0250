"""Servers that take only parts of one length: Cloudflare R2."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector import S3Checkpoint, S3CheckpointManager, S3ClientConfig, S3Exception
from s3torchconnector._config import GIB, KIB, MAX_PART_SIZE, MIB, MIN_PART_SIZE
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer.writing._multipart import MAX_PARTS, equal_part_size, size_of_part
from s3torchconnector.dcp import S3StorageWriter
from tests.reading.support import content
from tests.servers.stand_ins import R2, AwsLike

pytestmark = pytest.mark.usefixtures("s3_server")  # for its keys
BUDGET = 8 * MIB  # too little for parts of their full size
TENSORS = {"a": torch.arange(2_500_000), "b": torch.arange(2_000_000)}  # 36 MB
WHERE = ("us-east-1", "s3://bucket/run")


def config_of(**settings: Any) -> S3ClientConfig:
    return S3ClientConfig(memory_budget=BUDGET, max_attempts=2, **settings)


def stream(client: S3Client, key: str, size: int = 40 * MIB) -> None:
    """Write an object in small pieces, for its first half beside an open writer that takes the budget."""
    other = client.put_object("bucket", "other")
    other.write(bytearray(BUDGET))
    writer = client.put_object("bucket", key)
    for start in range(0, size, MIB):
        if start == size // 2:
            other.abort()
        writer.write(bytearray(content(start, start + MIB)))
    writer.close()


def sizes_of(memory: AwsLike) -> list[int]:
    """The sizes of all parts but the last of each upload."""
    parts = [each for each in memory.requests if "partNumber" in each.query]
    last = {each.query["uploadId"]: each for each in sorted(parts, key=lambda each: int(each.query["partNumber"]))}
    return [len(each.body) for each in parts if each is not last[each.query["uploadId"]]]


def test_the_setting_gives_parts_one_length_without_memory() -> None:
    memory = R2()
    with memory.serve() as server:
        with S3Client("us-east-1", endpoint=server.endpoint, s3client_config=config_of(equal_parts=True)) as client:
            stream(client, "key", 70 * MIB)
        assert memory.objects["key"].data[-MIB:] == content(69 * MIB, 70 * MIB)
        assert sizes_of(memory) == [32 * MIB] * 2


def test_a_refused_upload_names_the_setting_and_the_next_one_succeeds() -> None:
    memory = R2()
    with memory.serve() as server:
        with S3Client("us-east-1", endpoint=server.endpoint, s3client_config=config_of()) as client:
            with pytest.raises(S3Exception, match="equal_parts=True in S3ClientConfig, and part_size"):
                stream(client, "key")
            assert "key" not in memory.objects
            stream(client, "key")
        assert len(memory.objects["key"].data) == 40 * MIB


def test_endpoints_of_r2_get_equal_parts_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = R2()
    with memory.serve() as server:
        monkeypatch.setenv("HTTP_PROXY", server.endpoint)  # where plain HTTP to any host goes
        endpoint = "http://account.r2.cloudflarestorage.com"
        with S3Client("us-east-1", endpoint=endpoint, s3client_config=config_of(force_path_style=True)) as client:
            stream(client, "key")
        assert len(memory.objects["key"].data) == 40 * MIB


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_checkpoints_of_known_size_have_parts_of_one_size() -> None:
    memory = R2()
    with memory.serve() as server:
        settings: dict[str, Any] = {"endpoint": server.endpoint, "s3client_config": config_of(equal_parts=True)}
        S3Checkpoint("us-east-1", **settings).save_safetensors(TENSORS, "s3://bucket/model.safetensors")
        manager = S3CheckpointManager(WHERE[1], WHERE[0], **settings)
        manager.save(1, TENSORS)
        manager.save_async(2, TENSORS).result()
        manager.close()
        dcp.save(TENSORS, storage_writer=S3StorageWriter(WHERE[0], "s3://bucket/dcp", **settings))
        assert set(sizes_of(memory)) == {8 * MIB}


@pytest.mark.parametrize("part_size", [MIN_PART_SIZE, 8 * MIB, GIB])
@pytest.mark.parametrize("size", [0, 1, 7 * GIB, 8 * GIB, 100 * GIB, 1024 * GIB, 9 * 1024 * GIB])
def test_equal_parts_are_no_more_requests_than_growing_ones(part_size: int, size: int) -> None:
    equal = equal_part_size(part_size, size)
    growing, left = 0, size
    while left > 0:
        growing += 1
        left -= size_of_part(growing, part_size)
    assert math.ceil(size / equal) <= max(1, growing) <= MAX_PARTS
    assert part_size <= equal <= MAX_PART_SIZE
    assert equal == part_size or equal % MIB == 0


LARGEST_OBJECT = 50 * 10**12  # bytes that S3 stores: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html


MANY = st.integers(MAX_PARTS - 200, MAX_PARTS + 1)


@settings(max_examples=500)
@given(
    size=st.integers(0, LARGEST_OBJECT)
    | st.integers(0, 100 * GIB)
    | st.builds(lambda parts, power: min(LARGEST_OBJECT, parts * MIN_PART_SIZE << power), MANY, st.integers(0, 10)),
    part_size=st.integers(MIN_PART_SIZE, MAX_PART_SIZE) | st.sampled_from([MIN_PART_SIZE, 8 * MIB]),
    more=st.floats(0.0, 0.01),
)
def test_any_size_has_equal_parts_that_s3_takes(size: int, part_size: int, more: float) -> None:
    """Also if the object becomes somewhat larger than was expected: files have headers, and gaps between tensors."""
    equal = equal_part_size(part_size, size)
    written = min(LARGEST_OBJECT, int(size * (1 + more)) + MIB)
    parts = [equal] * (written // equal) + [written % equal] * (written % equal > 0)
    assert sum(parts) == written
    assert len(parts) <= MAX_PARTS
    assert all(part == equal for part in parts[:-1])
    assert MIN_PART_SIZE <= part_size <= equal <= MAX_PART_SIZE


def test_a_stream_has_parts_that_hold_much() -> None:
    assert equal_part_size(8 * MIB) * MAX_PARTS > 300 * GIB
    assert equal_part_size(64 * MIB) == 64 * MIB
    assert equal_part_size(8 * MIB, 100 * KIB) == 8 * MIB
