"""How fast objects of the prefix are read, for some seconds: a large one in order, or small ones many at a time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial

from s3torchconnector._config import MIB
from s3torchconnector._doctor._findings import Verdict, passed, skipped, warned
from s3torchconnector._doctor._session import Session
from s3torchconnector._errors import S3TimeoutError
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer import look_ahead
from s3torchconnector._types import ObjectInfo

_LARGE = MIB  # mean size in bytes from which objects are large
_TELLING = 32 * MIB  # bytes of an object that says how fast the network is
_FIRST_READ, _LONGEST_READ = 256 * 1024, 16 * MIB
_SLOW = 20.0  # MB/s, what one connection to S3 brings at worst
_FIX = (
    "train in the bucket's region; look for a proxy or a VPN on the way, and for few processors with TLS "
    "(guide: Troubleshooting, Slow large objects)"
)


def throughput(session: Session) -> Verdict:
    """Read as a job would, with its own configuration."""
    target = session.target
    objects = [info for info in session.objects if info.size and not info.key.startswith(session.scratch.prefix)]
    if not objects:
        return skipped("there is no object with content below the prefix")
    config = replace(target.config, read_timeout=session.step, operation_timeout=2 * session.step)
    is_large = sum(info.size for info in objects) / len(objects) >= _LARGE
    sizes: list[int] = []
    began = time.perf_counter()
    with S3Client(target.region, endpoint=target.endpoint, s3client_config=config) as client:
        read = _large if is_large else _small
        try:
            for size in read(client, target.bucket, objects, began + target.seconds):
                sizes.append(size)
        except S3TimeoutError:
            if not sizes:
                raise
            # A slow network: what has come by then is the result.
    seconds = time.perf_counter() - began
    speed = f"{sum(sizes) / 1e6 / seconds:,.1f} MB/s"
    if not is_large:
        return passed(f"{len(sizes) / seconds:,.0f} objects/s, {speed}, for {seconds:.1f} s with one process")
    is_slow = sum(sizes) / 1e6 / seconds < _SLOW
    text = f"{speed} of one object, for {seconds:.1f} s with one process"
    return warned(text, _FIX) if is_slow and _largest(objects).size >= _TELLING else passed(text)


def _largest(objects: list[ObjectInfo]) -> ObjectInfo:
    return max(objects, key=lambda info: info.size)


def _large(client: S3Client, bucket: str, objects: list[ObjectInfo], until: float) -> Iterator[int]:
    """Read one object again and again. The pieces grow, so that the time is kept on slow networks, too."""
    info, memory, piece = _largest(objects), memoryview(bytearray(_LONGEST_READ)), _FIRST_READ
    while time.perf_counter() < until:
        with closing(client.get_object(bucket, info.key, object_info=info)) as reader:
            while (began := time.perf_counter()) < until and (count := reader.readinto(memory[:piece])):
                yield count
                if time.perf_counter() - began < 0.5:
                    piece = min(2 * piece, _LONGEST_READ)


def _small(client: S3Client, bucket: str, objects: list[ObjectInfo], until: float) -> Iterator[int]:
    """Read objects as an iterable dataset does, in turn."""
    small = [info for info in objects if info.size <= 4 * _LARGE]
    infos = itertools.takewhile(lambda _: time.perf_counter() < until, itertools.cycle(small))
    open_reader = partial(client.get_object, bucket)
    readers = (open_reader(info.key, object_info=info) for info in infos)
    with closing(look_ahead(readers, [client._runtime])) as ahead:
        for reader in ahead:
            with reader:
                yield len(reader.read())
