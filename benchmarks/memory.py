"""Resident memory against what `S3ClientConfig` documents: `python -m benchmarks.memory` prints a table.

Each pattern runs in a fresh process, which measures itself by `meter.py`, against a local server in another.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from benchmarks.meter import Meter
from s3torchconnector import S3ClientConfig, S3Writer
from s3torchconnector._s3client import S3Client
from s3torchconnector.s3reader import S3Reader, S3ReaderConstructor

MIB = 1 << 20
SIZE = 2 << 30  # of the object that is read
KEY = "object"
_READERS, _RANGED, _WRITERS = 200, 100, 64
_LITTLE = 4096


def streams(client: S3Client, bucket: str) -> None:
    """200 streams, read 1 MiB at a time, in turn."""
    readers = [_reader(client, bucket, S3ReaderConstructor.sequential()) for _ in range(_READERS)]
    for _ in range(6):
        for reader in readers:
            reader.read(MIB)


def backwards(client: S3Client, bucket: str) -> None:
    """One reader that reads a little of each MiB, the last one first."""
    reader = _reader(client, bucket, S3ReaderConstructor.default())
    for position in range(SIZE - MIB, 0, -MIB):
        reader.seek(position)
        reader.read(_LITTLE)


def ranged(client: S3Client, bucket: str) -> None:
    """100 readers by `range_based()`, each at three places."""
    readers = [_reader(client, bucket, S3ReaderConstructor.range_based()) for _ in range(_RANGED)]
    for place in range(3):
        for number, reader in enumerate(readers):
            reader.seek((number * 19 + place * 500) * MIB)
            reader.read(_LITTLE)


def writers(client: S3Client, bucket: str) -> None:
    """64 open writers of 7 MiB, written 1 MiB at a time, in turn."""
    piece = bytearray(MIB)
    opened = [S3Writer(client.put_object(bucket, f"written-{number}")) for number in range(_WRITERS)]
    for _ in range(7):
        for writer in opened:
            writer.write(piece)
    for writer in opened:
        writer.close()


def threads(client: S3Client, bucket: str) -> None:
    """64 threads, each of which writes 20 MiB."""
    piece = bytearray(MIB)

    def write(number: int) -> None:
        with S3Writer(client.put_object(bucket, f"written-{number}")) as writer:
            for _ in range(20):
                writer.write(piece)

    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(write, range(_WRITERS)))


class Pattern(NamedTuple):
    """A way of using a client.

    Attributes:
        run: does it.
        budget: `memory_budget` in bytes.
        writers: how many are open at a time.
    """

    run: Callable[[S3Client, str], None]
    budget: int
    writers: int = 0


PATTERNS = {
    "streams": Pattern(streams, 64 * MIB),
    "backwards": Pattern(backwards, 64 * MIB),
    "ranged": Pattern(ranged, 64 * MIB),
    "writers": Pattern(writers, 32 * MIB, _WRITERS),
    "threads": Pattern(threads, 32 * MIB, _WRITERS),
}


def documented(pattern: Pattern) -> int:
    """MiB that the client may take, by the formula in the docstring of `S3ClientConfig`; no checksums are kept."""
    return (pattern.budget + max(4 * MIB, pattern.budget // 8)) // MIB + 5 * pattern.writers


def measure(name: str, endpoint: str, bucket: str) -> float:
    """By how many MiB this process grows at most."""
    pattern, meter = PATTERNS[name], Meter()
    config = S3ClientConfig(memory_budget=pattern.budget, checksum="off")
    with S3Client("us-east-1", endpoint=endpoint, s3client_config=config) as client:
        _reader(client, bucket, S3ReaderConstructor.default()).read(1)
        with meter:
            pattern.run(client, bucket)
    return meter.growth_mib


def measured(name: str, endpoint: str, bucket: str) -> float:
    """`measure` in a separate process."""
    command = [sys.executable, "-m", __spec__.name, name, endpoint, bucket]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=600)
    return float(json.loads(done.stdout))


def _reader(client: S3Client, bucket: str, kind: Callable[..., S3Reader]) -> S3Reader:
    return client.get_object(bucket, KEY, reader_constructor=kind)


def _main() -> None:
    from s3torchconnector.testing import S3Server

    with S3Server() as server, server.exported():
        server.make_bucket("memory")
        with open(server.folder / "memory" / KEY, "wb") as file:
            os.truncate(file.fileno(), SIZE)
        for name, pattern in PATTERNS.items():
            growth, most = measured(name, server.endpoint, "memory"), documented(pattern)
            print(
                f"{name:10} {growth:7.0f} MiB, {growth / most:4.0%} of the {most} MiB documented: {pattern.run.__doc__}"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", nargs="*", metavar="PATTERN ENDPOINT BUCKET", help="measure this process (internal)")
    job = parser.parse_args().job
    if job:
        print(json.dumps(measure(*job)))
    else:
        _main()
