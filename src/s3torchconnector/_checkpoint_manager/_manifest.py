"""The names of a checkpoint's objects, and the manifest that makes them a checkpoint. Pure.

::

    <uri>/step-0000000100/3f9c.../state.pt       data, under a name that no earlier save used
    <uri>/step-0000000100.json                   the manifest: the commit, stored last by one PUT, deleted first

A checkpoint exists if and only if its manifest does. Manifests are beside the folders, so that one page of a listing
has hundreds of them, however many objects a checkpoint has. An object in a folder that no manifest names was left by an
interrupted save.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from s3torchconnector._errors import S3FormatError

LARGEST_STEP = 10**10 - 1
_VERSION = 3
_KEY = re.compile(r"step-(\d{10})/(.+)", re.ASCII | re.DOTALL)
_MANIFEST = re.compile(r"step-(\d{10})\.json", re.ASCII)

Format = Literal["torch", "dcp"]


class StoredObject(NamedTuple):
    """One object of a checkpoint: its key relative to the step's folder, its size in bytes, and what identifies it.

    ``etag`` is S3's name of this version. ``checksum`` is that of its bytes, such as ``CRC32:yZRlqg==``, if one process
    wrote all of them.
    """

    key: str
    size: int
    etag: str
    checksum: str | None


class Manifest(NamedTuple):
    """A committed checkpoint.

    ``path`` is the folder of its objects, relative to the step's. ``stored`` is when the last of them was stored, by
    S3's clock, in seconds since 1970.
    """

    step: int
    format: Format
    path: str
    stored: int
    objects: tuple[StoredObject, ...]

    def to_json(self) -> bytes:
        objects = [each._asdict() for each in self.objects]
        return json.dumps({"version": _VERSION, **self._asdict(), "objects": objects}, indent=1).encode()


def check_step(step: Any) -> None:
    """Check the number of a step.

    Raises:
        TypeError, ValueError: it cannot be one.
    """
    if isinstance(step, bool) or not isinstance(step, int):
        raise TypeError(f"a step is a whole number, not {step!r}")
    if not 0 <= step <= LARGEST_STEP:
        raise ValueError(f"a step is a number from 0 to {LARGEST_STEP}, not {step}")


def folder_of(step: int) -> str:
    """The step's folder, relative to the manager's prefix, with a slash at the end."""
    return f"step-{step:010}/"


def manifest_of(step: int) -> str:
    """The name of the step's manifest, relative to the manager's prefix."""
    return f"step-{step:010}.json"


def step_of(name: str) -> int | None:
    """The step of a manifest, by its name relative to the manager's prefix. None if it is not a manifest."""
    match = _MANIFEST.fullmatch(name)
    return None if match is None else int(match[1])


def split_key(key: str) -> tuple[int, str] | None:
    """The step of a key (relative to the manager's prefix), and the rest of the key. None if it is not in a folder."""
    match = _KEY.fullmatch(key)
    return None if match is None else (int(match[1]), match[2])


def parse_manifest(data: bytes, step: int) -> Manifest:
    """Parse what ``to_json`` returned.

    Raises:
        S3FormatError: it is not a manifest, or that of another step.
    """
    try:
        document: dict[str, Any] = json.loads(data)
        if document["version"] != _VERSION:
            raise S3FormatError(f"its version is {document['version']!r}, but this release reads version {_VERSION}")
        objects = tuple(StoredObject(**each) for each in document["objects"])
        manifest = Manifest(document["step"], document["format"], document["path"], document["stored"], objects)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if isinstance(error, S3FormatError):
            raise
        raise S3FormatError(f"it is not a manifest ({type(error).__name__}: {error})") from error
    _check(manifest, step)
    return manifest


def _check(manifest: Manifest, step: int) -> None:
    if manifest.step != step:
        raise S3FormatError(f"it is the manifest of step {manifest.step!r}")
    if type(manifest.stored) is not int:
        raise S3FormatError(f"its time is {manifest.stored!r}, not a number of seconds")
    if manifest.format not in ("torch", "dcp") or not isinstance(manifest.path, str):
        raise S3FormatError(f"it names the format {manifest.format!r} and the path {manifest.path!r}")
    for each in manifest.objects:
        kinds = isinstance(each.key, str), type(each.size) is int, isinstance(each.etag, str)
        if not all(kinds) or not isinstance(each.checksum, str | None):
            raise S3FormatError(f"it describes an object by {each!r}")
        if not each.key.startswith(manifest.path):
            raise S3FormatError(f"its object {each.key!r} is not below its path {manifest.path!r}")


def check_format(manifest: Manifest, state_dict: dict[str, Any] | None) -> None:
    """Check that ``state_dict`` is given if and only if ranks saved the checkpoint.

    Raises:
        ValueError: it is missing, or must not be given.
    """
    if (manifest.format == "dcp") != (state_dict is not None):
        advice = "pass the state_dict to load into" if state_dict is None else "leave out state_dict"
        saved_by = "ranks (format dcp)" if manifest.format == "dcp" else "one process (format torch)"
        raise ValueError(f"the checkpoint of step {manifest.step} was saved by {saved_by}: {advice}")


def differences(manifest: Manifest, found: Sequence[StoredObject]) -> list[str]:
    """What is wrong with the objects found, in words. Empty for an undamaged checkpoint."""
    there = {each.key: each for each in found}
    compared = (difference(each, there.get(each.key)) for each in manifest.objects)
    return [wrong for wrong in compared if wrong is not None]


def difference(described: StoredObject, found: StoredObject | None) -> str | None:
    """What is wrong with one object, in words; None if nothing is."""
    if found is None:
        return f"{described.key} is missing"
    if found.size != described.size:
        return f"{described.key} has {found.size} bytes, not {described.size}"
    if found.etag != described.etag:
        return f"{described.key} was overwritten: its ETag is {found.etag}, not {described.etag}"
    return None
