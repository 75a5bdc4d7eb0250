"""Reads and saves of every kind, each compared with the expected bytes.

An operation returns what it transferred, or raises ``S3Exception``: both are right. Anything else is wrong: other
errors, and ``AssertionError`` for wrong bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from s3torchconnector import S3Checkpoint, S3ClientConfig, S3IterableDataset, S3Reader, S3ReaderConstructor, S3Writer
from s3torchconnector._config import MIB
from s3torchconnector._errors import S3Exception, S3NotFoundError
from s3torchconnector._s3client import S3Client
from s3torchconnector._wire._caller import Caller
from tests.faults.corpus import LARGEST_SAVE, Corpus, Stored, drawn
from tests.wire.support import REGION, fast_rule

IMPATIENT = S3ClientConfig(part_size=5 * MIB, max_attempts=10, connect_timeout=1.0, read_timeout=1.0)


class ProgramFailed(Exception):
    """A program's own error in the middle of a save."""


@dataclass
class Moved:
    """What an operation did."""

    reads: int = 0
    saves: int = 0
    bytes: int = 0


@dataclass
class Place:
    """The bucket, servers and clients of the operations.

    Args:
        bucket, corpus: what is there.
        endpoint: of the proxy.
        direct: a client of the server itself, to look at what is stored.
        config: of the clients.
    """

    bucket: str
    corpus: Corpus
    endpoint: str
    direct: S3Client
    config: S3ClientConfig = IMPATIENT
    client: S3Client = field(init=False)
    checkpoint: S3Checkpoint = field(init=False)

    def __post_init__(self) -> None:
        self.client = S3Client(REGION, endpoint=self.endpoint, s3client_config=self.config)
        self.checkpoint = S3Checkpoint(REGION, endpoint=self.endpoint, s3client_config=self.config)
        retry_quickly(self.client)
        retry_quickly(self.checkpoint._client)

    def close(self) -> None:
        self.client.close()
        self.checkpoint._client.close()

    def uri(self, stored: Stored) -> str:
        return f"s3://{self.bucket}/{stored.key}"


def retry_quickly(client: S3Client) -> None:
    """Make its pauses between attempts a thousand times shorter."""
    runtime = client._runtime()
    runtime.caller.close()
    runtime.caller = Caller(
        client.region,
        client.endpoint,
        client.s3client_config,
        client.user_agent,
        fast_rule(runtime.config.max_attempts),
    )


# -- reads ----------------------------------------------------------------------------------------------------------


def read_whole(place: Place, dice: random.Random) -> Moved:
    stored = dice.choice(place.corpus.objects)
    with place.client.get_object(place.bucket, stored.key) as reader:
        _expect_all(reader.read(), stored)
    return Moved(reads=1, bytes=stored.size)


def stream(place: Place, dice: random.Random) -> Moved:
    stored = dice.choice(place.corpus.objects)
    position = 0
    constructor = dice.choice((None, S3ReaderConstructor.sequential()))
    with place.client.get_object(place.bucket, stored.key, reader_constructor=constructor) as reader:
        while data := reader.read(dice.choice((1000, 100_000, 3 * MIB))):
            _expect(data, stored, position)
            position += len(data)
    assert position == stored.size, f"{stored} ended after {position} bytes"
    return Moved(reads=1, bytes=stored.size)


def read_into_parts(place: Place, dice: random.Random) -> Moved:
    """Ranges in any order, into memory of the program."""
    stored = dice.choice(place.corpus.objects)
    moved = Moved(reads=1)
    buffer = bytearray(min(stored.size, 6 * MIB))
    with place.client.get_object(place.bucket, stored.key) as reader:
        for _ in range(dice.randrange(1, 5)):
            start = dice.randrange(stored.size)
            size = dice.randrange(1, len(buffer) + 1)
            reader.seek(start)
            count = reader.readinto(memoryview(buffer)[:size])
            assert 0 < count <= size
            _expect(bytes(buffer[:count]), stored, start)
            moved.bytes += count
    return moved


def load(place: Place, dice: random.Random) -> Moved:
    stored = dice.choice(place.corpus.checkpoints)
    with place.checkpoint.reader(place.uri(stored)) as reader:
        weights = torch.load(reader)["weights"]
    assert torch.equal(weights, place.corpus.tensor(stored)), f"wrong numbers in {stored}"
    return Moved(reads=1, bytes=stored.size)


def iterate(place: Place, dice: random.Random) -> Moved:
    """A dataset with look-ahead, of objects whose sizes are not known before."""
    wanted = dice.choices(place.corpus.objects, k=6)
    return _iterate(place, wanted, S3IterableDataset.from_objects(map(place.uri, wanted), **_dataset(place)))


def iterate_listed(place: Place, _: random.Random) -> Moved:
    """A dataset of small objects whose sizes come from a listing: they are multiplexed."""
    uri = f"s3://{place.bucket}/small/"
    return _iterate(place, place.corpus.small, S3IterableDataset.from_prefix(uri, **_dataset(place)))


def _dataset(place: Place) -> dict[str, Any]:
    return {
        "region": REGION,
        "endpoint": place.endpoint,
        "transform": S3Reader.read,
        "s3client_config": place.config,
    }


def _iterate(place: Place, wanted: Sequence[Stored], dataset: S3IterableDataset) -> Moved:
    with dataset._source.client as client:
        retry_quickly(client)
        for stored, data in zip(wanted, dataset, strict=True):
            _expect_all(data, stored)
    return Moved(reads=len(wanted), bytes=sum(each.size for each in wanted))


def _expect_all(data: bytes, stored: Stored) -> None:
    assert len(data) == stored.size, f"{stored} came with {len(data)} bytes"
    _expect(data, stored, 0)


def _expect(data: bytes, stored: Stored, start: int) -> None:
    expected = stored.bytes(start, start + len(data))
    if data != expected:
        wrong = [i for i, (got, wanted) in enumerate(zip(data, expected, strict=False)) if got != wanted] or [
            len(expected)
        ]
        raise AssertionError(
            f"{len(wrong)} wrong bytes in {stored} from {start + wrong[0]} to {start + wrong[-1] + 1}, "
            f"in {len(data)} read from {start}"
        )


# -- saves ----------------------------------------------------------------------------------------------------------


def save(place: Place, dice: random.Random) -> Moved:
    """A save, after which the object is complete; if it raises, the object is complete or absent."""
    stored = drawn(f"saves/{dice.getrandbits(64):x}", LARGEST_SAVE, dice)
    try:
        with S3Writer(place.client.put_object(place.bucket, stored.key)) as writer:
            _write(writer, stored, dice)
    except S3Exception:
        _expect_whole_or_absent(place, stored)
        raise
    with place.direct.get_object(place.bucket, stored.key) as reader:
        _expect_whole(reader, stored)
    place.direct.delete_object(place.bucket, stored.key)
    return Moved(saves=1, bytes=stored.size)


def fail_in_the_middle(place: Place, dice: random.Random) -> Moved:
    """A save whose program fails in the middle: there is no object."""
    stored = drawn(f"saves/{dice.getrandbits(64):x}", LARGEST_SAVE // 2, dice)
    try:
        with S3Writer(place.client.put_object(place.bucket, stored.key)) as writer:
            _write(writer, stored, dice)
            raise ProgramFailed
    except ProgramFailed:
        pass
    assert not _exists(place, stored), f"{stored} exists although its save failed"
    return Moved(saves=1, bytes=stored.size)


def _write(writer: S3Writer, stored: Stored, dice: random.Random) -> None:
    for piece in stored.pieces():
        step = dice.choice((len(piece), 1 + len(piece) // 3))
        for start in range(0, len(piece), step):
            writer.write(piece[start : start + step])


def _expect_whole_or_absent(place: Place, stored: Stored) -> None:
    if _exists(place, stored):
        with place.direct.get_object(place.bucket, stored.key) as reader:
            _expect_whole(reader, stored)


def _exists(place: Place, stored: Stored) -> bool:
    try:
        place.direct.head_object(place.bucket, stored.key)
    except S3NotFoundError:
        return False
    return True


def _expect_whole(reader: S3Reader, stored: Stored) -> None:
    for piece in stored.pieces():
        assert reader.read(len(piece)) == piece, f"{stored} was stored with wrong bytes before {reader.tell()}"
    assert not reader.read(1), f"{stored} was stored with more bytes"


Operation = Callable[[Place, random.Random], Moved]
READS: tuple[Operation, ...] = (read_whole, stream, read_into_parts, load, iterate, iterate_listed)
SAVES: tuple[Operation, ...] = (save, save, save, save, fail_in_the_middle)
