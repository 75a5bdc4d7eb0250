"""What programs and libraries save through a writer comes back."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch

from s3torchconnector import S3Checkpoint, S3Writer
from s3torchconnector._config import MIB
from s3torchconnector._s3client import S3Client
from s3torchconnector.testing import S3Server
from tests.servers.moto_server import MotoServer
from tests.writing.support import (
    PART,
    SMALL_PARTS,
    client_of,
    noise,
    read_back,
    writer_of,
)


@pytest.mark.parametrize("zip_format", [True, False])
def test_torch_save_and_load(s3_server: S3Server, bucket: str, zip_format: bool) -> None:
    checkpoint = S3Checkpoint(s3_server.region, s3_server.endpoint, SMALL_PARTS)
    generator = torch.Generator().manual_seed(1)
    state = {
        "weights": torch.rand(3 * MIB, generator=generator),
        "half": torch.rand(1000, generator=generator).to(torch.bfloat16),
        "step": 7,
    }
    with checkpoint.writer(f"s3://{bucket}/epoch-1.pt") as writer:
        torch.save(state, writer, _use_new_zipfile_serialization=zip_format)
    with checkpoint.reader(f"s3://{bucket}/epoch-1.pt") as reader:
        loaded = torch.load(reader, weights_only=True)
    assert loaded.keys() == state.keys()
    assert torch.equal(loaded["weights"], state["weights"])
    assert torch.equal(loaded["half"], state["half"])
    assert loaded["step"] == 7


def test_other_libraries_write_to_it(client: S3Client, bucket: str) -> None:
    values = np.arange(1000).reshape(10, 100)
    with writer_of(client, bucket, "pickle") as writer:
        pickle.dump({"values": values}, writer, protocol=5)
    with writer_of(client, bucket, "npy") as writer:
        np.save(writer, values)
    with writer_of(client, bucket, "text") as binary, io.TextIOWrapper(binary, encoding="utf-8") as text:
        text.write("Zeile 1\näöü\n")
    assert np.array_equal(pickle.loads(read_back(client, bucket, "pickle"))["values"], values)
    assert np.array_equal(np.load(io.BytesIO(read_back(client, bucket, "npy"))), values)
    assert read_back(client, bucket, "text").decode() == "Zeile 1\näöü\n"


@pytest.mark.parametrize("size", [10, PART + 1])
def test_a_storage_class(moto_server: MotoServer, moto_bucket: str, size: int) -> None:
    with client_of(moto_server.endpoint) as client:
        with S3Writer(client.put_object(moto_bucket, "key", storage_class="STANDARD_IA")) as writer:
            writer.write(noise(size))
        assert client.head_object(moto_bucket, "key").storage_class == "STANDARD_IA"
        assert read_back(client, moto_bucket) == noise(size)


def test_a_writer_keeps_its_client(s3_server: S3Server, bucket: str) -> None:
    uri = f"s3://{bucket}/key"
    with S3Checkpoint(s3_server.region, s3_server.endpoint, SMALL_PARTS).writer(uri) as writer:
        writer.write(noise(3 * PART))
    with S3Checkpoint(s3_server.region, s3_server.endpoint, SMALL_PARTS).reader(uri) as reader:
        assert reader.read() == noise(3 * PART)
