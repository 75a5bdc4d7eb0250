"""The names of a checkpoint's objects, and the manifest that makes them one. Pure.

::

    <uri>/step-0000000100/3f9c.../state.pt       data, under a name that no earlier save used
    <uri>/step-0000000100.json                   the manifest: the commit, stored last by one PUT, deleted first

A step is there if and only if its manifest is. Manifests lie beside the folders, so that one page of a listing tells
hundreds of them, however many objects a checkpoint has. What is in a folder and in no manifest was left by an
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
    """One object of a checkpoint: its key behind the step's folder, its size in bytes, and what tells it from others.

    ``checksum`` is that of its bytes, such as ``CRC32:yZRlqg==``, where one process wrote them all; ``etag`` is S3's
    word for this version.
    """

    key: str
    size: int
    etag: str
    checksum: str | None


class Manifest(NamedTuple):
    """A committed checkpoint.

    ``path`` is the folder of its objects, behind the step's; ``stored`` is when the last of them was stored, by S3's
    clock, in seconds since 1970.
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
    """
    Raises:
        TypeError, ValueError: it cannot be the number of a step.
    """
    if isinstance(step, bool) or not isinstance(step, int):
        raise TypeError(f"a step is a whole number, not {step!r}")
    if not 0 <= step <= LARGEST_STEP:
        raise ValueError(f"a step is a number from 0 to {LARGEST_STEP}, not {step}")


def folder_of(step: int) -> str:
    """The step's folder behind the manager's prefix, with a slash at its end."""
    return f"step-{step:010}/"


def manifest_of(step: int) -> str:
    """The name of the step's manifest behind the manager's prefix."""
    return f"step-{step:010}.json"


def step_of(name: str) -> int | None:
    """The step of a manifest's name (behind the manager's prefix); None for what is no manifest."""
    match = _MANIFEST.fullmatch(name)
    return None if match is None else int(match[1])


def split_key(key: str) -> tuple[int, str] | None:
    """The step of a key (behind the manager's prefix) and the rest behind its folder; None for what is none of ours."""
    match = _KEY.fullmatch(key)
    return None if match is None else (int(match[1]), match[2])


def parse_manifest(data: bytes, step: int) -> Manifest:
    """A manifest as ``to_json`` writes it.

    Raises:
        S3FormatError: it is something else, or of another step.
    """
    try:
        document: dict[str, Any] = json.loads(data)
        if document["version"] != _VERSION:
            raise S3FormatError(f"its version is {document['version']!r}, and this release reads version {_VERSION}")
        objects = tuple(StoredObject(**each) for each in document["objects"])
        manifest = Manifest(document["step"], document["format"], document["path"], document["stored"], objects)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if isinstance(error, S3FormatError):
            raise
        raise S3FormatError(f"it is no manifest ({type(error).__name__}: {error})") from error
    _check(manifest, step)
    return manifest


def _check(manifest: Manifest, step: int) -> None:
    if manifest.step != step:
        raise S3FormatError(f"it is the manifest of step {manifest.step!r}")
    if type(manifest.stored) is not int:
        raise S3FormatError(f"it says that it was stored at {manifest.stored!r}")
    if manifest.format not in ("torch", "dcp") or not isinstance(manifest.path, str):
        raise S3FormatError(f"it names the format {manifest.format!r} and the path {manifest.path!r}")
    for each in manifest.objects:
        kinds = isinstance(each.key, str), type(each.size) is int, isinstance(each.etag, str)
        if not all(kinds) or not isinstance(each.checksum, str | None):
            raise S3FormatError(f"it describes an object by {each!r}")
        if not each.key.startswith(manifest.path):
            raise S3FormatError(f"its object {each.key!r} is not below its path {manifest.path!r}")


def check_format(manifest: Manifest, state_dict: dict[str, Any] | None) -> None:
    """
    Raises:
        ValueError: it is not loaded with, or without, a ``state_dict``.
    """
    if (manifest.format == "dcp") != (state_dict is not None):
        advice = "give the state_dict to load into" if state_dict is None else "leave out state_dict"
        saved_by = "ranks (format dcp)" if manifest.format == "dcp" else "one process (format torch)"
        raise ValueError(f"the checkpoint of step {manifest.step} was saved by {saved_by}: {advice}")


def differences(manifest: Manifest, found: Sequence[StoredObject]) -> list[str]:
    """What is wrong with the objects that are there, in words; nothing for a whole checkpoint."""
    there = {each.key: each for each in found}
    wrong = []
    for each in manifest.objects:
        other = there.get(each.key)
        if other is None:
            wrong.append(f"{each.key} is missing")
        elif other.size != each.size:
            wrong.append(f"{each.key} has {other.size} bytes, not {each.size}")
        elif other.etag != each.etag:
            wrong.append(f"{each.key} was overwritten: its ETag is {other.etag}, not {each.etag}")
    return wrong
