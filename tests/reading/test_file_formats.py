"""Libraries that read files read an ``S3Reader``; what they wrote through ``S3Writer`` comes back the same."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch

from s3torchconnector import S3Checkpoint, S3ClientConfig
from s3torchconnector.s3reader import S3ReaderConstructor
from s3torchconnector.testing import S3Server
from tests.reading.support import KIB, MIB, PART, content

POLICIES = {
    "default": S3ReaderConstructor.default(),
    "sequential": S3ReaderConstructor.sequential(),
    "range_based": S3ReaderConstructor.range_based(64 * KIB),
    "dcp_optimized": S3ReaderConstructor.dcp_optimized(),
}


class Store:
    """Objects of one bucket: bytes in, readers out."""

    def __init__(self, checkpoint: S3Checkpoint, bucket: str) -> None:
        self.checkpoint = checkpoint
        self.uri = f"s3://{bucket}/folder/object"

    def holds(self, data: bytes) -> None:
        with self.checkpoint.writer(self.uri) as writer:
            writer.write(data)

    def open(self) -> Any:
        return self.checkpoint.reader(self.uri)


@pytest.fixture(params=POLICIES)
def store(request: pytest.FixtureRequest, s3_server: S3Server, bucket: str) -> Iterator[Store]:
    config = S3ClientConfig(part_size=PART)
    checkpoint = S3Checkpoint("us-east-1", s3_server.endpoint, config, POLICIES[request.param])
    yield Store(checkpoint, bucket)
    checkpoint._client.close()


def test_text(store: Store) -> None:
    lines = [f"{number}: Zeile für Zeile, 文字\n" for number in range(30_000)]
    store.holds("".join(lines).encode())
    with io.TextIOWrapper(store.open(), encoding="utf-8") as text:
        assert list(text) == lines
    with io.TextIOWrapper(store.open(), encoding="utf-8") as text:
        assert text.readline() == lines[0]
        place = text.tell()
        assert text.read(1000) == "".join(lines)[len(lines[0]) :][:1000]
        text.seek(place)
        assert text.readline() == lines[1]


def test_buffered_reader(store: Store) -> None:
    store.holds(content(0, MIB))
    with io.BufferedReader(store.open()) as buffered:
        assert buffered.read(10) == content(0, 10)
        assert buffered.seek(-10, io.SEEK_END) == MIB - 10
        assert buffered.read() == content(MIB - 10, MIB)


def test_pickle(store: Store) -> None:
    value = {"numbers": list(range(10_000)), "bytes": content(0, 7 * MIB), "text": "Wort"}
    store.holds(pickle.dumps(value) + pickle.dumps("another"))
    with store.open() as reader:
        assert pickle.load(reader) == value
        assert pickle.load(reader) == "another"


def test_gzip(store: Store) -> None:
    store.holds(gzip.compress(content(0, 2 * MIB), 1))
    with gzip.open(store.open()) as unpacked:
        assert unpacked.read() == content(0, 2 * MIB)


def test_zip(store: Store) -> None:
    members = {f"folder/{number}": content(number, number + 60 * KIB * number) for number in range(20)}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    store.holds(packed.getvalue())
    with store.open() as reader, zipfile.ZipFile(reader) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in reversed(archive.namelist())} == members


@pytest.mark.parametrize("mode", ["r:", "r|", "r:gz", "r|*"])
def test_tar(store: Store, mode: str) -> None:
    members = {f"folder/{number}": content(number, number + 60 * KIB * number) for number in range(20)}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz" if "gz" in mode else "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    store.holds(packed.getvalue())
    with store.open() as reader, tarfile.open(fileobj=reader, mode=mode) as archive:  # type: ignore[call-overload]
        assert {member.name: archive.extractfile(member).read() for member in archive} == members


def test_numpy(store: Store) -> None:
    array = np.arange(900_000, dtype=np.float64).reshape(300, 3000)
    packed = io.BytesIO()
    np.save(packed, array)
    store.holds(packed.getvalue())
    with store.open() as reader:
        assert np.array_equal(np.load(reader), array)
    packed = io.BytesIO()
    np.savez(packed, first=array[:7], second=array[7:])
    store.holds(packed.getvalue())
    with store.open() as reader, np.load(reader) as arrays:
        assert np.array_equal(np.concatenate([arrays["first"], arrays["second"]]), array)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_pillow(store: Store, form: str) -> None:
    packed = io.BytesIO()
    PIL.Image.frombytes("RGB", (160, 120), content(0, 160 * 120 * 3)).save(packed, form)
    store.holds(packed.getvalue())
    with store.open() as reader, PIL.Image.open(reader) as image:
        assert image.tobytes() == PIL.Image.open(packed).tobytes()


def test_parquet(store: Store) -> None:
    frame = pd.DataFrame({"number": range(200_000), "word": [f"word {number % 977}" for number in range(200_000)]})
    frame["fraction"] = frame.number / 7
    store.holds(frame.to_parquet(row_group_size=20_000))
    with store.open() as reader:
        pd.testing.assert_frame_equal(pd.read_parquet(reader), frame)
    with store.open() as reader:
        pd.testing.assert_frame_equal(pd.read_parquet(reader, columns=["word"]), frame[["word"]])


def state() -> dict[str, Any]:
    """Small and large tensors, of more than two parts together."""
    generator = torch.Generator().manual_seed(0)
    large = {f"large.{number}": torch.randn(700_000, generator=generator) for number in range(4)}
    small = {f"small.{number}": torch.randn(number, 3, generator=generator) for number in range(50)}
    return {**large, **small, "half": torch.randn(999, generator=generator).half(), "epoch": 3}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        for name, value in one.items()
    )


@pytest.mark.parametrize("arguments", [{"weights_only": True}, {"weights_only": False, "mmap": False}])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_save_and_load(store: Store, arguments: dict[str, bool], zipped: bool) -> None:
    saved = state()
    with store.checkpoint.writer(store.uri) as writer:
        torch.save(saved, writer, _use_new_zipfile_serialization=zipped)
    with store.open() as reader:
        assert same(torch.load(reader, **arguments), saved)
