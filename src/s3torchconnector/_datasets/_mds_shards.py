"""Where the samples of MDS shards lie: an ``index.json`` names the shards, and each begins with a table of offsets.

The format is that of MosaicML Streaming, version 2. A shard begins with the number of its samples (u32), then come the
offsets of the samples and the end of the last one (u32 each); then a description of the columns, which the index has
as well; then the samples.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from s3torchconnector._datasets._at_once import in_order
from s3torchconnector._datasets._chosen_objects import Filter, Listed
from s3torchconnector._datasets._ranges import AT_ONCE, named_error, read_range
from s3torchconnector._datasets._rows import Row
from s3torchconnector._datasets._sample_rows import Part, SampleRow
from s3torchconnector._errors import S3FormatError
from s3torchconnector._progress import Progress
from s3torchconnector._s3client import S3Client
from s3torchconnector._samples._mds import Column, SampleDecoder
from s3torchconnector._samples._records import mds_form
from s3torchconnector._uri import parse_s3_uri

_INDEX = "index.json"
_WORD = 4  # bytes of a number


@dataclass(frozen=True)
class _Shard:
    """The entry of a shard in an index."""

    key: str
    size: int
    samples: int
    columns: tuple[Column, ...]


def samples_of(client: S3Client, uris: Iterable[str]) -> Iterator[SampleRow]:
    """The samples of all shards, in the order of the indexes.

    Raises:
        TypeError, ValueError: a URI is not an S3 URI.
        S3FormatError: an index or a shard is damaged or missing, or shards are compressed.
        ImportError: NumPy is missing, and there are numbers or arrays of it.
        S3Exception: an error occurred accessing S3.
    """
    shards = [found for uri in uris for found in _shards_of(client, uri)]
    progress = Progress(client.s3client_config.progress, "reading tables of shards", "shards", len(shards))
    every = in_order(partial(_offsets_of, client), shards, AT_ONCE, 2 * AT_ONCE)
    for row, form, offsets in progress.each(every):
        for number, place in enumerate(pairwise(offsets)):
            yield SampleRow(str(number), [Part(row, form, *place)])


def _shards_of(client: S3Client, uri: str) -> list[tuple[Row, _Shard]]:
    """The shards of an index, as they are listed."""
    if not uri.endswith(".json"):
        uri = f"{uri.rstrip('/')}/{_INDEX}"
    bucket, key = parse_s3_uri(uri)
    with client.get_object(bucket, key) as reader:
        text = reader.read()
    folder = key[: key.rfind("/") + 1]
    try:
        shards = _shards_in(json.loads(text), folder)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        why = error if isinstance(error, S3FormatError) else repr(error)
        raise S3FormatError(f"{uri} cannot be used as an index of MDS shards: {why}", bucket=bucket, key=key) from error
    wanted = {shard.key for shard in shards}
    listed = Listed(client, [f"s3://{bucket}/{folder}"], Filter(predicate=lambda info: info.key in wanted))
    rows = {row.key: row for row in listed}
    for shard in shards:
        row = rows.get(shard.key)
        if row is None or row.size != shard.size:
            what = "there is no such object" if row is None else f"it has {row.size} bytes"
            raise S3FormatError(
                f"{uri} names the shard {shard.key} of {shard.size} bytes, and {what}: some of the data was not "
                "uploaded, or belongs to another index",
                bucket=bucket,
                key=shard.key,
            )
    return [(rows[shard.key], shard) for shard in shards]


def _shards_in(index: dict[str, Any], folder: str) -> list[_Shard]:
    """
    Raises:
        S3FormatError: its shards are of another format or version, or compressed.
        KeyError, TypeError, AttributeError, ValueError: it is no index.
    """
    return [_shard(each, folder) for each in index["shards"]]


def _shard(described: dict[str, Any], folder: str) -> _Shard:
    if (described["format"], described["version"]) != ("mds", 2):
        raise S3FormatError(
            f"its shards are {described['format']} in version {described['version']}, and not MDS in version 2"
        )
    if described.get("zip_data") is not None:
        raise S3FormatError(
            f"its shards are compressed ({described.get('compression')}), and cannot be read in place. Write them with "
            "compression=None"
        )
    raw, samples = described["raw_data"], described["samples"]
    names = ("column_names", "column_encodings", "column_sizes")
    columns = tuple([Column(*each) for each in zip(*map(described.__getitem__, names), strict=True)])
    for value in (raw["bytes"], samples, *[column.size or 0 for column in columns]):
        if type(value) is not int or not 0 <= value < 2**32:
            raise ValueError(f"{value!r} is no number of bytes or samples")
    SampleDecoder(columns)  # may raise
    return _Shard(f"{folder}{raw['basename']}", raw["bytes"], samples, columns)


def _offsets_of(client: S3Client, found: tuple[Row, _Shard]) -> tuple[Row, str, array[int]]:
    """A shard, the form of its samples, and where they begin and the last one ends."""
    row, shard = found
    form, words = mds_form(list(shard.columns)), shard.samples + 2
    if not shard.samples:
        return row, form, array("I")
    try:
        if words * _WORD > row.size:
            raise S3FormatError(f"it has {row.size} bytes, too few for {shard.samples} samples")
        table = array("I", read_range(client, row, 0, words * _WORD))
        offsets = table[1:]
        if table[0] != shard.samples:
            raise S3FormatError(f"it has {table[0]} samples, but its index says {shard.samples}")
        if offsets[0] < words * _WORD or offsets[-1] != row.size or any(a >= b for a, b in pairwise(offsets)):
            raise S3FormatError(
                f"its table of offsets is damaged: they do not rise from {words * _WORD} or more to {row.size}"
            )
    except S3FormatError as error:
        raise named_error(row, "an MDS shard", error) from error
    return row, form, offsets
