"""``s3torch rm``: deletes what a person has confirmed, many objects at a time."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Annotated, NamedTuple

import typer

from s3torchconnector._cli._confirm import Yes, confirm, expect_terminal
from s3torchconnector._cli._connection import Connection, connects
from s3torchconnector._cli._endings import clean_when_terminated, fail
from s3torchconnector._cli._jobs import Jobs
from s3torchconnector._cli._location import Location, Objects
from s3torchconnector._cli._output import DryRun, Json, Verbose, printable, readable
from s3torchconnector._cli._report import Report, Words
from s3torchconnector._errors import S3AccessDeniedError, S3Exception
from s3torchconnector._plural import counted
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer import MOST_TOGETHER, delete_objects

_AT_ONCE = 4  # batches


@connects
def rm(
    objects: Objects,
    *,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Delete all objects in these folders.")] = False,
    yes: Yes = False,
    whole_bucket: Annotated[
        bool, typer.Option("--whole-bucket", help="Let --recursive delete all objects of a bucket.")
    ] = False,
    dry_run: DryRun = False,
    verbose: Verbose = False,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """Delete objects. Asks first: without a terminal, --yes is needed.

    With --recursive, s3://bucket/folder means s3://bucket/folder/, and what is in it. Objects that others change or add
    after the question stay. In a bucket that keeps versions, the versions stay.
    """
    places = [_checked(each, recursive, whole_bucket) for each in objects]
    words = Words("would delete" if dry_run else "deleted", "object", "delete", "deleting")
    with connection.opened() as client, clean_when_terminated():
        newest = math.inf if yes or dry_run else _ask(client, places, recursive)
        report = Report(words, as_json=as_json, verbose=verbose or dry_run, shows_bytes=False)
        with report, Jobs(_AT_ONCE, sys.maxsize) as jobs:
            for batch in _batches(_found(client, places, recursive)):
                agreed = []
                for found in batch:
                    report.expect(found.size)
                    if dry_run or found.changed > newest:
                        report.note(found.names, found.size if dry_run else None)
                    else:
                        agreed.append(found)
                if agreed:
                    jobs.submit(partial(_delete, client, agreed, report))


class _Found(NamedTuple):
    """An object that is to be deleted. ``changed`` is when, in seconds since 1970."""

    place: Location
    size: int = 0
    changed: float = 0

    @property
    def names(self) -> dict[str, str]:
        return {"uri": str(self.place)}


def _checked(place: Location, recursive: bool, whole_bucket: bool) -> Location:
    if recursive:
        if not place.key.strip("/") and not whole_bucket:
            raise typer.BadParameter(f"{place} would delete all objects of the bucket: add --whole-bucket to mean that")
        return place.folder
    if not place.key:
        raise typer.BadParameter(f"{place} names no object: write s3://{place.bucket}/key, or add --recursive")
    return place


def _found(client: S3Client, places: list[Location], recursive: bool) -> Iterator[_Found]:
    for place in places:
        if not recursive:
            yield _Found(place)
            continue
        for infos in client.list_all(place.bucket, place.key):
            for info in infos:
                yield _Found(Location(place.bucket, info.key), info.size, info.last_modified)


def _ask(client: S3Client, places: list[Location], recursive: bool) -> float:
    """Ask a person. Return the time of the last change of the objects found: the person has not agreed to delete newer
    ones.
    """
    expect_terminal("rm")
    count = size = 0
    newest = 0.0
    for found in _found(client, places, recursive) if recursive else _looked_up(client, places):
        count, size, newest = count + 1, size + found.size, max(newest, found.changed)
    where = printable(", ".join(map(str, places))) if len(places) < 4 else f"{len(places)} places"
    if not count:
        raise fail(f"there is no object below {where}")
    confirm(f"Delete {counted(count, 'object')}, {readable(size)}, {'below ' if recursive else ''}{where}?")
    return newest if recursive else math.inf


def _looked_up(client: S3Client, places: list[Location]) -> Iterator[_Found]:
    for place in places:
        size = 0
        with contextlib.suppress(S3AccessDeniedError):  # who may delete it need not be allowed to read it
            size = client.head_object(*place).size
        yield _Found(place, size)


def _batches(objects: Iterable[_Found]) -> Iterator[list[_Found]]:
    """Neighbours of one bucket, as many as one request deletes."""
    batch: list[_Found] = []
    for found in objects:
        if len(batch) == MOST_TOGETHER or (batch and batch[0].place.bucket != found.place.bucket):
            yield batch
            batch = []
        batch.append(found)
    if batch:
        yield batch


def _delete(client: S3Client, batch: list[_Found], report: Report) -> None:
    bucket = batch[0].place.bucket
    errors = delete_objects(client._runtime(), bucket, [found.place.key for found in batch])
    for found in batch:
        report.attempt(found.names, partial(_outcome, found, errors.get(found.place.key)))


def _outcome(found: _Found, error: S3Exception | None) -> int:
    if error is not None:
        raise error
    return found.size
