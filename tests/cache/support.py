"""Stored bytes that can be checked by themselves, and processes that store them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from s3torchconnector._cache._format import digest_of
from s3torchconnector._cache._store import Store

MIB = 2**20
FORK: Any = multiprocessing.get_context("fork")


def digest(number: int) -> bytes:
    """What identifies the bytes of ``content(number)``."""
    return digest_of("", "bucket", f"key-{number}", "etag", 0, size_of(number))


def size_of(number: int) -> int:
    """From 1 byte to 40 KiB."""
    return random.Random(number).randrange(1, 40_000)


def content(number: int) -> bytes:
    """Bytes that no other number has."""
    return random.Random(number).randbytes(size_of(number))


def add(store: Store, number: int) -> bool:
    return store.add(digest(number), content(number))


def load(store: Store, number: int) -> bytes | None:
    entry = store.find(digest(number))
    return None if entry is None else store.load(digest(number), entry)


def size_of_directory(path: Path) -> int:
    """The sizes of all files in it, added up."""
    total = 0
    with os.scandir(path) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                total += entry.stat().st_size
    return total


def age(path: Path) -> None:
    """Have it look as if nothing had been used for a day."""
    for name in os.listdir(path):
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            os.utime(path / name, (time.time() - 86400, time.time() - 86400))


@contextlib.contextmanager
def processes(count: int, target: Any, *args: Any) -> Iterator[list[Any]]:
    """Forked processes, each with its number before the arguments; killed at the end if they are still there."""
    started = [FORK.Process(target=target, args=(number, *args)) for number in range(count)]
    try:
        for process in started:
            process.start()
        yield started
    finally:
        for process in started:
            process.kill()
            process.join()
