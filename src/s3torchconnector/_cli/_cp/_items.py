"""The items to copy, one for each file or object. They are found while others are already being copied."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple

import typer

from s3torchconnector._cli._cp._files import files_below
from s3torchconnector._cli._cp._names import NameRefusedError, key_of, path_of
from s3torchconnector._cli._cp._partial_files import is_partial
from s3torchconnector._cli._cp._places import Local, Place
from s3torchconnector._cli._location import Location
from s3torchconnector._cli._report import is_hopeless
from s3torchconnector._errors import S3Exception
from s3torchconnector._s3client import S3Client
from s3torchconnector._types import HeadObjectResult, ObjectInfo

_IN_SOURCE = "this would replace an object that is to be copied itself, maybe before it is: copy to another folder"


class Item(NamedTuple):
    """One file or object to copy.

    Attributes:
        source, target: an object, or a path.
        info: what S3 told about an object that is the source.
        refused: why it cannot be copied; None if it can.
        is_partial: whether it is a file that a killed download has left, and that nobody wants.
    """

    source: Place
    target: Place
    info: ObjectInfo | None = None
    refused: str | None = None
    is_partial: bool = False

    @property
    def names(self) -> dict[str, str]:
        return {"source": str(self.source), "destination": str(self.target)}


class Request(NamedTuple):
    """The arguments of ``cp`` that say what is copied."""

    sources: list[Place]
    target: Place
    recursive: bool
    follow_links: bool

    def check(self) -> Request:
        """Return it, with a folder as the target if it has to be one.

        Raises:
            typer.BadParameter: wrong usage.
        """
        is_s3 = {isinstance(source, Location) for source in self.sources}
        if len(is_s3) > 1:
            raise typer.BadParameter("the sources are objects and files: copy either at a time")
        if False in is_s3 and not isinstance(self.target, Location):
            raise typer.BadParameter(f"neither {self.sources[0]} nor {self.target} is in S3: one begins with s3://")
        for source in self.sources:
            self._check_source(source)
        if self.recursive:
            return self._check_tree()
        return self._check_target()

    def _check_source(self, source: Place) -> None:
        if isinstance(source, Location):
            if not self.recursive and (not source.key or source.key.endswith("/")):
                raise typer.BadParameter(f"{source} is a folder: add --recursive to copy what is in it")
        elif self.recursive and not os.path.isdir(source.text):
            if not os.path.lexists(source.text) and source.text != "-":
                raise typer.BadParameter(f"{source} does not exist")
            raise typer.BadParameter(f"{source} is no folder: leave out --recursive")
        elif not self.recursive and os.path.isdir(source.text):
            raise typer.BadParameter(f"{source} is a folder: add --recursive to copy what is in it")

    def _check_tree(self) -> Request:
        if len(self.sources) > 1:
            raise typer.BadParameter("--recursive takes one source")
        [source], target = self.sources, self.target
        if not isinstance(target, Location):
            if target.is_stream:
                raise typer.BadParameter(f"{target} is no folder: a folder is copied to a folder")
            return self
        target = target.folder
        if isinstance(source, Location) and str(target).startswith(str(source.folder)):
            raise typer.BadParameter(f"{target} is inside of {source}: the copy would have copies of itself")
        return self._replace(target=target)

    def _check_target(self) -> Request:
        if any(isinstance(source, Local) and source.text == "-" for source in self.sources):
            if len(self.sources) > 1 or not isinstance(self.target, Location) or not _names_object(self.target):
                raise typer.BadParameter("standard input is copied to one object: write s3://bucket/key")
            return self
        if len(self.sources) > 1:
            is_folder = not _names_object(self.target) if isinstance(self.target, Location) else self.target.is_folder
            if not is_folder:
                raise typer.BadParameter(f"several sources are copied to a folder: write {self.target}/ if it is one")
            names = [source.name for source in self.sources]
            twice = next((name for name in names if names.count(name) > 1), None) if len(names) < 1000 else None
            if twice or len(set(names)) < len(names):
                raise typer.BadParameter(f"several sources have the same name: {twice or 'list them'}")
        for source in self.sources:
            if _inside(self.target, source.name) == source:
                raise typer.BadParameter(f"{source} would be copied to itself")
        return self


def items(client: S3Client, request: Request) -> Iterator[Item]:
    """The items to copy, in no particular order."""
    source, target = request.sources[0], request.target
    if not request.recursive:
        yield from _single_items(client, request)
    elif isinstance(source, Location):
        yield from _tree_of_objects(client, source.folder, target)
    else:
        assert isinstance(target, Location)
        yield from _tree_of_files(source, target, request.follow_links)


def _single_items(client: S3Client, request: Request) -> Iterator[Item]:
    lane = client._runtime().lane()
    looked_up: list[tuple[Place, Future[HeadObjectResult] | None]] = [
        (each, lane.submit(partial(client.head_object, *each)) if isinstance(each, Location) else None)
        for each in request.sources
    ]
    for source, future in looked_up:
        target = request.target
        try:
            target = _inside(target, source.name)
            info = ObjectInfo(source.key, *future.result()[:-1]) if isinstance(source, Location) and future else None
            yield Item(source, target, info)
        except (NameRefusedError, S3Exception) as error:
            if isinstance(error, S3Exception) and (len(looked_up) == 1 or is_hopeless(error)):
                raise
            yield Item(source, target, refused=str(error))


def _inside(target: Place, name: str) -> Place:
    """The target of one file of that name."""
    if isinstance(target, Location):
        return target if _names_object(target) else target._replace(key=target.key + key_of([name]))
    return Local(path_of(target.text, name)) if target.is_folder else target


def _names_object(target: Location) -> bool:
    return bool(target.key) and not target.key.endswith("/")


def _tree_of_objects(client: S3Client, source: Location, target: Place) -> Iterator[Item]:
    found = False
    for infos in client.list_all(source.bucket, source.key):
        for info in infos:
            found = True
            relative = info.key[len(source.key) :]
            is_mark = not info.size and (not relative or relative.endswith("/"))  # of a folder, by a console
            if not is_mark or isinstance(target, Location):
                item = _item_of_tree(Location(source.bucket, info.key), target, relative, info)
                yield item._replace(refused=_IN_SOURCE) if str(item.target).startswith(str(source)) else item
    if not found:
        raise FileNotFoundError(f"there is no object below {source}")


def _item_of_tree(source: Location, target: Place, relative: str, info: ObjectInfo) -> Item:
    if isinstance(target, Location):
        return Item(source, target._replace(key=target.key + relative), info)
    try:
        return Item(source, Local(path_of(target.text, relative)), info)
    except NameRefusedError as error:
        return Item(source, target, info, refused=str(error))


def _tree_of_files(source: Local, target: Location, follow_links: bool) -> Iterator[Item]:
    for file in files_below(source.text, follow_links):
        if is_partial(file.names[-1]):
            yield Item(Local(file.path), target, is_partial=True)
        elif file.refused is None:
            try:
                yield Item(Local(file.path), target._replace(key=target.key + key_of(file.names)))
            except NameRefusedError as error:
                yield Item(Local(file.path), target, refused=str(error))
        else:
            yield Item(Local(file.path), target, refused=file.refused)
