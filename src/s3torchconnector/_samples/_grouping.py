"""WebDataset's rule for which files are one sample. Pure.

The key of a file is its path up to the first dot of the file's name, and its name in the sample is what follows that
dot, in lower case. Files that follow each other and have the same key are one sample. Files without a dot, and those
below or named ``__like_this__``, belong to no sample. The rule is that of ``webdataset.tariterators``
(https://github.com/webdataset/webdataset), with which tests compare this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from s3torchconnector._errors import S3FormatError

KEY, URL = "__key__", "__url__"
_BAD = "__bad__"  # a sample with this file, unless that is empty, is left out
_NAME = re.compile(r"((?:.*/)?[^.]+)\.([^/]*)$")
_META = re.compile(r"__[^/]*__(?:$|/)")


def split_name(path: str) -> tuple[str, str] | None:
    """The key of a file's sample, and its name there; None if it belongs to no sample."""
    match = None if _META.match(path) else _NAME.match(path)
    return None if match is None else (match[1], match[2].lower())


class File(Protocol):
    """A file that may belong to a sample."""

    @property
    def path(self) -> str: ...

    @property
    def is_empty(self) -> bool: ...


_F = TypeVar("_F", bound=File)


def group(files: Iterable[_F]) -> Iterator[tuple[str, dict[str, _F]]]:
    """The samples of an archive's files: key, and files by their names in the sample.

    Raises:
        S3FormatError: two files of a sample have the same name.
    """
    key, found = "", dict[str, _F]()
    for file in files:
        parts = split_name(file.path)
        if parts is None:
            continue
        if parts[0] != key:
            if _is_valid(found):
                yield key, found
            key, found = parts[0], {}
        if parts[1] in found or parts[1] in (KEY, URL):
            raise S3FormatError(
                f"the sample {key!r} has two files that would be {parts[1]!r}, one of them {file.path!r}"
            )
        found[parts[1]] = file
    if _is_valid(found):
        yield key, found


def _is_valid(found: dict[str, _F]) -> bool:
    return bool(found) and (_BAD not in found or found[_BAD].is_empty)
