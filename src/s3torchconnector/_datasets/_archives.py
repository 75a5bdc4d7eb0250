"""Finds the positions of samples in tar archives: each archive is read once, several at a time, and not kept.

The samples of an archive can be stored as soon as they are known, as a separate manifest whose name identifies the
archive's version. A restarted process, or another one, then does not read that archive again.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from s3torchconnector._datasets import _manifest_object
from s3torchconnector._datasets._at_once import in_order
from s3torchconnector._datasets._build import build_samples
from s3torchconnector._datasets._energon import INDEX_SUFFIX, offsets_of
from s3torchconnector._datasets._named_files import files_of
from s3torchconnector._datasets._rows import Row
from s3torchconnector._datasets._sample_columns import ARCHIVES
from s3torchconnector._datasets._sample_rows import Part, SampleRow, SampleRows
from s3torchconnector._errors import S3FormatError, S3NotFoundError
from s3torchconnector._progress import Progress
from s3torchconnector._s3client import S3Client
from s3torchconnector._samples._grouping import group
from s3torchconnector._samples._tar import Entry, TarParser
from s3torchconnector._transfer import PinnedObject
from s3torchconnector._types import ObjectInfo
from s3torchconnector._uri import display_uri

_log = logging.getLogger(__name__)
_AT_ONCE = 8  # archives; each is read ahead within the client's memory_budget
_AHEAD = 16  # archives that are under way, or wait for one before them: 600 bytes a sample
_SUFFIX = ".tar"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def archives_of(client: S3Client, uris: Iterable[str]) -> Iterator[Row]:
    """The archives that are named, and those below prefixes, in their order; see ``files_of``."""
    hint = "Compressed archives (.tar.gz) cannot be read in place: store them uncompressed"
    return files_of(client, uris, (_SUFFIX,), hint, (*_COMPRESSED,))


class _Stopped(Exception):
    """Another archive could not be read, or the caller has stopped. This error is never shown."""


@dataclass
class Indexing:
    """Finds the samples of archives.

    Attributes:
        client: what reads them.
        use_index: whether to believe an index that Energon has written.
        progress_at: where to store what was found in each archive; None: nowhere.
    """

    client: S3Client
    use_index: bool
    progress_at: str | None
    _stopped: threading.Event = field(default_factory=threading.Event)

    def samples(self, archives: Iterable[Row]) -> Iterator[SampleRow]:
        """The samples of all archives, in order.

        Raises:
            S3FormatError: one of them is no archive, truncated, or compressed.
            S3Exception: an error occurred accessing S3.
        """
        self._stopped.clear()
        rows = list(archives)
        progress = Progress(self.client.s3client_config.progress, "indexing archives", "archives", len(rows))
        every = in_order(self.of_archive, rows, _AT_ONCE, _AHEAD, self._stopped.set)
        for number, found in enumerate(progress.each(every), 1):
            yield from found
            if number % 100 == 0:
                _log.info("%d archives are indexed", number)

    def of_archive(self, row: Row) -> list[SampleRow]:
        """The samples of one archive: as stored earlier, or found now."""
        at = self._progress_of(row)
        if at is not None:
            try:
                stored = _manifest_object.fetch(self.client, at, None)
                if isinstance(stored, SampleRows):
                    return list(stored)
            except S3NotFoundError:
                pass  # it was not indexed yet
        samples = self._found(row)
        if at is not None:
            _manifest_object.store(self.client, at, build_samples(ARCHIVES, samples), overwrite=True)
        return samples

    def _progress_of(self, row: Row) -> str | None:
        if self.progress_at is None:
            return None
        name = hashlib.sha256(repr((*row, self.use_index)).encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return f"{self.progress_at.rstrip('/')}/{name}.s3manifest"

    def _found(self, row: Row) -> list[SampleRow]:
        try:
            offsets = self._offsets(row) if self.use_index else None
            if offsets is not None:
                return [SampleRow(str(i), [Part(row, None, *place)]) for i, place in enumerate(pairwise(offsets))]
            return [
                SampleRow(key, [Part(row, name, *entry[1:]) for name, entry in files.items()])
                for key, files in group(self._entries(row))
            ]
        except S3FormatError as error:
            raise S3FormatError(
                f"{display_uri(row.bucket, row.key)} cannot be read as samples: {error}", bucket=row.bucket, key=row.key
            ) from error

    def _offsets(self, row: Row) -> list[int] | None:
        """Where samples begin and the last one ends, if Energon has written that."""
        try:
            with self.client.get_object(row.bucket, row.key.removesuffix(_SUFFIX) + INDEX_SUFFIX) as reader:
                return offsets_of(reader.read(), row.size)
        except S3NotFoundError:
            return None

    def _entries(self, row: Row) -> Iterator[Entry]:
        parser = TarParser()
        listed = ObjectInfo(row.key, row.etag, row.size, 0)
        for data in PinnedObject(self.client._runtime, row.bucket, row.key, listed)():
            if self._stopped.is_set():
                raise _Stopped
            yield from parser.feed(data)
        parser.finish()
        if not parser.ended:
            _log.warning(
                "%s has no end mark: the process that wrote it may have been killed before it had written all samples",
                display_uri(row.bucket, row.key),
            )
