"""Finds the positions of samples in tar archives: each archive is read once, several at a time, and not kept.

The samples of a large archive can be stored as soon as they are known, as a separate manifest whose name identifies the
archive's version. A restarted process, or another one, then does not read that archive again.

What a small archive needs (its index, or its bytes) is requested before a thread has time for it, so that thousands of
small archives cost one round trip for a hundred of them. A listing tells which of them have an index.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from s3torchconnector._config import KIB, MIB
from s3torchconnector._datasets import _manifest_object
from s3torchconnector._datasets._at_once import in_order
from s3torchconnector._datasets._build import build_samples
from s3torchconnector._datasets._chosen_objects import Filter, Listed
from s3torchconnector._datasets._energon import INDEX_SUFFIX, offsets_of
from s3torchconnector._datasets._named_files import runs_of
from s3torchconnector._datasets._rows import Row
from s3torchconnector._datasets._sample_columns import ARCHIVES
from s3torchconnector._datasets._sample_rows import Part, SampleRow, SampleRows
from s3torchconnector._errors import S3FormatError, S3NotFoundError
from s3torchconnector._progress import Progress
from s3torchconnector._s3client import S3Client
from s3torchconnector._samples._grouping import group
from s3torchconnector._samples._tar import Entry, TarParser
from s3torchconnector._transfer import ADAPTIVE, BytesByPosition, PinnedObject
from s3torchconnector._types import ObjectInfo
from s3torchconnector._uri import display_uri, parse_s3_uri
from s3torchconnector.s3reader import S3Reader

_log = logging.getLogger(__name__)
_SMALL = 1 * MIB  # archives up to here are fetched ahead, and what is found in them is not stored
_AT_ONCE = 8  # archives; each is read ahead within the client's memory_budget
_AHEAD = 16  # archives that are under way, or wait for one before them: 600 bytes a sample
_SMALL_AHEAD = 128  # the same, if they are small
_LIKELY_INDEX = 16 * KIB  # bytes: two thousand samples
_SUFFIX = ".tar"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


class Archive(NamedTuple):
    """An archive that is to be indexed.

    Attributes:
        row: the archive.
        beside: the index of Energon; None if there is none.
        is_listed: whether that is known. The index of an archive that was named is asked for.
    """

    row: Row
    beside: Row | None
    is_listed: bool


def archives_of(client: S3Client, uris: Iterable[str]) -> Iterator[Archive]:
    """The archives that are named, and those below prefixes, in their order; see ``files_of``."""
    hint = "Compressed archives (.tar.gz) cannot be read in place: store them uncompressed"
    for is_named, rows in runs_of(client, uris, (_SUFFIX,), hint, (*_COMPRESSED,), (INDEX_SUFFIX,)):
        if is_named:
            yield from (Archive(row, None, False) for row in rows)
            continue
        listed = list(rows)
        indexes = {row.key: row for row in listed if row.key.endswith(INDEX_SUFFIX)}
        archives = (row for row in listed if row.key.endswith(_SUFFIX))
        yield from (Archive(row, indexes.get(_index_of(row.key)), True) for row in archives)


def _index_of(key: str) -> str:
    return key.removesuffix(_SUFFIX) + INDEX_SUFFIX


class _Begun(NamedTuple):
    """An archive, and what is requested already of what it needs."""

    archive: Archive
    stored: S3Reader | None = None
    offsets: S3Reader | None = None
    content: BytesByPosition | None = None


class _Stopped(Exception):
    """Another archive could not be read, or the caller has stopped. This error is never shown."""


@dataclass
class Indexing:
    """Finds the samples of archives.

    Attributes:
        client: what reads them.
        use_index: whether to believe an index that Energon has written.
        progress_at: where to store what was found in each archive that is not small; None: nowhere.
    """

    client: S3Client
    use_index: bool
    progress_at: str | None
    _stopped: threading.Event = field(default_factory=threading.Event)
    _stored: dict[str, Row] = field(default_factory=dict)

    def samples(self, archives: Iterable[Archive]) -> Iterator[SampleRow]:
        """The samples of all archives, in order.

        Raises:
            S3FormatError: one of them is no archive, truncated, or compressed.
            S3Exception: an error occurred accessing S3.
        """
        self._stopped.clear()
        listed = list(archives)
        self._stored = self._stored_before(listed)
        progress = Progress(self.client.s3client_config.progress, "indexing archives", "archives", len(listed))
        are_small = sum(archive.row.size for archive in listed) <= _SMALL * len(listed)
        ahead = _SMALL_AHEAD if are_small else _AHEAD
        every = in_order(self._samples_of, map(self._begun, listed), _AT_ONCE, ahead, self._stopped.set)
        for number, found in enumerate(progress.each(every), 1):
            yield from found
            if number % 100 == 0:
                _log.info("%d archives are indexed", number)

    def _stored_before(self, archives: Sequence[Archive]) -> dict[str, Row]:
        """What is stored at ``progress_at``, by its key."""
        if self.progress_at is None or all(archive.row.size <= _SMALL for archive in archives):
            return {}
        prefix = f"{self.progress_at.rstrip('/')}/"
        return {row.key: row for row in Listed(self.client, [prefix], Filter(suffixes=".s3manifest", min_size=1))}

    def _begun(self, archive: Archive) -> _Begun:
        """Begin to fetch what is small."""
        row, index, is_listed = archive
        at = self._progress_of(row)
        stored = self._stored.get(parse_s3_uri(at)[1]) if at is not None else None
        if stored is not None:
            return _Begun(archive, stored=self._opened(stored))
        if index is not None and self.use_index:
            return _Begun(archive, offsets=self._opened(index))
        reader, content = None, None
        if self.use_index and not is_listed:
            reader = self.client.get_object(row.bucket, _index_of(row.key))
            reader._start_early(_LIKELY_INDEX)
        if row.size <= _SMALL:
            content = self._pinned(row).open(ADAPTIVE)
            content.prefetch()
        return _Begun(archive, offsets=reader, content=content)

    def _opened(self, row: Row) -> S3Reader:
        reader = self.client.get_object(row.bucket, row.key, object_info=ObjectInfo(row.key, row.etag, row.size, 0))
        reader._start_early()
        return reader

    def _pinned(self, row: Row) -> PinnedObject:
        listed = ObjectInfo(row.key, row.etag, row.size, 0)
        return PinnedObject(self.client._runtime, row.bucket, row.key, listed)

    def _samples_of(self, begun: _Begun) -> list[SampleRow]:
        """The samples of one archive: as stored earlier, or found now."""
        row = begun.archive.row
        at = self._progress_of(row)
        if begun.stored is not None and at is not None:
            with begun.stored as reader:
                stored = _manifest_object.received(reader, at)
            if isinstance(stored, SampleRows):
                return list(stored)
        try:
            offsets = None if begun.offsets is None else _offsets(begun.offsets, row)
            if offsets is not None:
                return [SampleRow(str(i), [Part(row, None, *place)]) for i, place in enumerate(pairwise(offsets))]
            samples = [
                SampleRow(key, [Part(row, name, *entry[1:]) for name, entry in files.items()])
                for key, files in group(self._entries(begun))
            ]
        except S3FormatError as error:
            raise S3FormatError(
                f"{display_uri(row.bucket, row.key)} cannot be read as samples: {error}", bucket=row.bucket, key=row.key
            ) from error
        if at is not None:
            _manifest_object.store(self.client, at, build_samples(ARCHIVES, samples), overwrite=True)
        return samples

    def _progress_of(self, row: Row) -> str | None:
        if self.progress_at is None or row.size <= _SMALL:
            return None
        name = hashlib.sha256(repr((*row, self.use_index)).encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return f"{self.progress_at.rstrip('/')}/{name}.s3manifest"

    def _content(self, begun: _Begun) -> Iterator[bytes]:
        """The bytes of an archive, in order."""
        if begun.content is None:
            return self._pinned(begun.archive.row)()
        data = begun.content.read_to_end(0)
        begun.content.close()
        return iter([data])

    def _entries(self, begun: _Begun) -> Iterator[Entry]:
        parser = TarParser()
        for data in self._content(begun):
            if self._stopped.is_set():
                raise _Stopped
            yield from parser.feed(data)
        parser.finish()
        if not parser.ended:
            row = begun.archive.row
            _log.warning(
                "%s has no end mark: the process that wrote it may have been killed before it had written all samples",
                display_uri(row.bucket, row.key),
            )


def _offsets(index: S3Reader, row: Row) -> list[int] | None:
    """Where samples begin and the last one ends, if Energon has written that."""
    try:
        with index as reader:
            return offsets_of(reader.read(), row.size)
    except S3NotFoundError:
        return None
