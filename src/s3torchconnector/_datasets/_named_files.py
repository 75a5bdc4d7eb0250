"""Files of one kind that are named, one by one or by what their keys begin with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby, product

from s3torchconnector._datasets._chosen_objects import Filter, Listed, named
from s3torchconnector._datasets._rows import Row
from s3torchconnector._errors import S3FormatError
from s3torchconnector._s3client import S3Client
from s3torchconnector._uri import parse_s3_uri

_BRACES = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"(\d+)\.\.(\d+)")


def files_of(
    client: S3Client, uris: Iterable[str], suffixes: tuple[str, ...], hint: str, more: tuple[str, ...] = ()
) -> Iterator[Row]:
    """The files that are named, and those below prefixes, in their order.

    Args:
        client: what asks for them.
        uris: of files, with braces for several (``train-{000..127}.tar``, ``{train,val}.tar``); and prefixes.
        suffixes: what keys of files end with.
        hint: what an error says if there is none below a prefix.
        more: other ends of keys that name files, and not prefixes.

    Raises:
        TypeError, ValueError: a URI is not an S3 URI.
        S3FormatError: there is no file below a prefix.
        S3NotFoundError: there is no such file.
    """
    for _, rows in runs_of(client, uris, suffixes, hint, more):
        yield from rows


def runs_of(
    client: S3Client,
    uris: Iterable[str],
    suffixes: tuple[str, ...],
    hint: str,
    more: tuple[str, ...] = (),
    beside: tuple[str, ...] = (),
) -> Iterator[tuple[bool, Iterator[Row]]]:
    """``files_of``, in runs: whether the files are named, and these files. A run of others is what lies below a prefix.

    Args:
        client, uris, suffixes, hint, more: see ``files_of``.
        beside: what other keys end with that are to be found below prefixes, too.
    """
    every = (each for uri in uris for each in expanded(uri))
    for is_file, some in groupby(every, lambda uri: parse_s3_uri(uri)[1].endswith((*suffixes, *more))):
        if is_file:
            yield True, named(client, some)
        else:
            for uri in some:
                yield False, _below(client, uri, suffixes, hint, beside)


def _below(client: S3Client, uri: str, suffixes: tuple[str, ...], hint: str, beside: tuple[str, ...]) -> Iterator[Row]:
    found = False
    for row in Listed(client, [uri], Filter(suffixes=(*suffixes, *beside))):
        found = found or row.key.endswith(suffixes)
        yield row
    if not found:
        ends = " or ".join(suffixes)
        raise S3FormatError(f"there is no object below {uri} whose key ends with {ends}. {hint}")


def expanded(uri: str) -> Iterator[str]:
    """The URIs that braces stand for, as in ``train-{000..127}.tar`` and ``{train,val}.tar``."""
    texts = _BRACES.split(uri)  # every other one stood in braces
    for chosen in product(*(_alternatives(text) if i % 2 else [text] for i, text in enumerate(texts))):
        yield "".join(chosen)


def _alternatives(text: str) -> list[str]:
    match = _NUMBERS.fullmatch(text)
    if match is None:
        return text.split(",") if "," in text else ["{" + text + "}"]
    first, last = match[1], match[2]
    width = len(first) if first.startswith("0") or len(first) == len(last) else 0
    return [f"{number:0{width}}" for number in range(int(first), int(last) + 1)]
