"""``s3torch cat``: writes objects to standard output, in a bounded amount of memory, and fetches each one early."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Annotated, NamedTuple

import typer

from s3torchconnector._cli._connection import Connection, connects
from s3torchconnector._cli._file_errors import STANDARD_OUTPUT, named_in_errors
from s3torchconnector._cli._location import Location, Objects
from s3torchconnector._config import MIB
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer import SEQUENTIAL, ObjectSource, look_ahead
from s3torchconnector.s3reader import S3Reader, S3ReaderConstructor

_AT_A_TIME = 1 * MIB


class ByteRange(NamedTuple):
    """Bytes of an object, both ends included; counted from its end if there is no first one, as in HTTP."""

    first: int | None
    last: int | None


def parse_range(text: str) -> ByteRange:
    """Read an argument. A wrong one is wrong usage: exit code 2."""
    match = re.fullmatch(r"(?:bytes=)?(\d*)-(\d*)", text, re.ASCII)
    first, last = (int(digits) if digits else None for digits in match.groups()) if match else (None, None)
    if (first is None and last is None) or (first is not None and last is not None and last < first):
        raise typer.BadParameter(f"not a range of bytes: {text!r}. Write 0-99, 100- or -100")
    return ByteRange(first, last)


@connects
def cat(
    objects: Objects,
    *,
    byte_range: Annotated[
        ByteRange | None,
        typer.Option(
            "--range", parser=parse_range, metavar="FIRST-LAST", help="Only these bytes of each: 0-99, 100- or -100."
        ),
    ] = None,
    connection: Connection,
) -> None:
    """Write objects to standard output, one after the other. The next ones are fetched meanwhile.

    An object is compared with S3's checksum when all of it was read. If it differs, the exit code is 1.
    """
    for each in objects:
        if not each.key:
            raise typer.BadParameter(f"{each} names no object: write s3://{each.bucket}/key")
    with connection.opened() as client:
        if byte_range is None:
            pour_all(client, objects, write_output)
        else:
            for each in objects:
                _pour_range(client, each, byte_range, write_output)


def write_output(data: memoryview) -> None:
    """Write to standard output."""
    with named_in_errors(STANDARD_OUTPUT):
        sys.stdout.buffer.write(data)


def pour_all(client: S3Client, objects: list[Location], write: Callable[[memoryview], object]) -> None:
    """Write whole objects, in order."""
    constructor = S3ReaderConstructor.sequential()
    readers: Iterator[S3Reader] = (client.get_object(*each, reader_constructor=constructor) for each in objects)
    with closing(look_ahead(readers, [client._runtime])) as early, memoryview(bytearray(_AT_A_TIME)) as buffer:
        for reader in early:
            with reader:
                while count := reader.readinto(buffer):
                    write(buffer[:count])


def _pour_range(client: S3Client, place: Location, wanted: ByteRange, write: Callable[[memoryview], object]) -> None:
    first, last = wanted
    if first is None:
        assert last is not None
        first, last = max(0, client.head_object(*place).size - last), None
    stop = None if last is None else last + 1
    source = ObjectSource(client._runtime, *place).open(SEQUENTIAL, stop)
    with closing(source), memoryview(bytearray(_AT_A_TIME)) as buffer:
        left = sys.maxsize if stop is None else stop - first
        while left and (count := source.readinto(first, buffer[: min(left, _AT_A_TIME)])):
            write(buffer[:count])
            first, left = first + count, left - count
