"""What manifests are made of: listings, names, archives, files of samples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._datasets import _chosen_objects, _mds_shards
from s3torchconnector._datasets._archives import Indexing, archives_of
from s3torchconnector._datasets._build import build, build_samples
from s3torchconnector._datasets._chosen_objects import Filter
from s3torchconnector._datasets._inventory import Report, objects_of
from s3torchconnector._datasets._row_groups import row_groups_of
from s3torchconnector._datasets._rows import Samples
from s3torchconnector._datasets._sample_columns import ARCHIVES, RECORDS
from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo

_M = TypeVar("_M", bound="_ManifestSources")


class _ManifestSources:
    """The part of ``S3Manifest`` that makes one."""

    def __init__(self, rows: Samples, client: S3Client) -> None:
        self._rows = rows
        self._client = client

    @classmethod
    def from_prefix(
        cls: type[_M],
        s3_uris: str | Iterable[str],
        *,
        region: str,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
        suffixes: str | Collection[str] | None = None,
        glob: str | None = None,
        min_size: int = 0,
        max_size: int | None = None,
        storage_classes: Collection[str] | None = None,
        predicate: Callable[[ObjectInfo], bool] | None = None,
    ) -> _M:
        """List the objects whose keys begin with a prefix, or with one of several, and keep those that pass.

        Empty objects whose key ends with ``/`` (directory markers) are left out. So are archived objects, with a
        warning; ``archived`` says how many there were. A prefix of which no object is taken is a warning, too.

        Args:
            s3_uris: one or more prefixes, such as ``"s3://bucket/train/"``; none of them below another.
            region, endpoint, s3client_config: see ``S3Client``.
            suffixes: with one of which a key must end, such as ``(".jpg", ".png")``.
            glob: a pattern that the whole key must match, such as ``"train/*/left-*.png"``; ``*`` matches ``/`` too.
            min_size, max_size: bounds of the size, in bytes.
            storage_classes: the only ones to keep. One that archives is kept only if it is named here.
            predicate: called with the ``ObjectInfo`` of what passed the others; True keeps the object.

        Raises:
            TypeError, ValueError: a URI is not an S3 URI, or one prefix lies below another.
            S3Exception: an error occurred accessing S3.
        """
        client = S3Client(region, endpoint=endpoint, s3client_config=s3client_config)
        uris = [s3_uris] if isinstance(s3_uris, str) else list(s3_uris)
        passing = Filter(suffixes, glob, min_size, max_size, storage_classes, predicate)
        return cls(build(_chosen_objects.Listed(client, uris, passing, warns=True), uris), client)

    @classmethod
    def from_objects(
        cls: type[_M],
        object_uris: str | Iterable[str],
        *,
        region: str,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
    ) -> _M:
        """Describe the objects that are named, in their order. Sends a HEAD request for each, many at a time.

        Raises:
            TypeError, ValueError: a URI does not name an object.
            S3NotFoundError: there is no such object.
            S3Exception: an error occurred accessing S3.
        """
        client = S3Client(region, endpoint=endpoint, s3client_config=s3client_config)
        uris = [object_uris] if isinstance(object_uris, str) else object_uris
        return cls(build(_chosen_objects.named(client, uris)), client)

    @classmethod
    def from_inventory(
        cls: type[_M],
        s3_uri: str,
        *,
        region: str,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
        prefix: str = "",
        suffixes: str | Collection[str] | None = None,
        glob: str | None = None,
        min_size: int = 0,
        max_size: int | None = None,
        storage_classes: Collection[str] | None = None,
        predicate: Callable[[ObjectInfo], bool] | None = None,
    ) -> _M:
        """Take the objects from a report of S3 Inventory, which S3 makes daily or weekly of a whole bucket.

        Nothing is listed. Objects that were overwritten or deleted since the report raise an error when they are read.
        The files of the report, CSV or Parquet (with the extra ``parquet``), are read one after the other and compared
        with their MD5. The manifest is in key order, as one of a listing. Archived objects are left out, also those
        that S3 Intelligent-Tiering has archived if the report has the field ``IntelligentTieringAccessTier``.

        Args:
            s3_uri: the ``manifest.json`` of the report, in the bucket that the reports go to.
            region, endpoint, s3client_config: see ``S3Client``; of both buckets.
            prefix: with which a key must begin.
            suffixes, glob, min_size, max_size, storage_classes, predicate: see ``from_prefix``.

        Raises:
            S3FormatError: it is no report, a damaged one, in ORC, or without the fields Size and ETag.
            ImportError: the report is in Parquet, and pyarrow is missing.
            S3Exception: an error occurred accessing S3.
        """
        client = S3Client(region, endpoint=endpoint, s3client_config=s3client_config)
        passing = Filter(suffixes, glob, min_size, max_size, storage_classes, predicate)
        return cls(objects_of(client, Report.fetched(client, s3_uri), prefix, passing), client)

    @classmethod
    def from_tar(
        cls: type[_M],
        s3_uris: str | Iterable[str],
        *,
        region: str,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
        use_index: bool = True,
        progress_at: str | None = None,
    ) -> _M:
        """Find the samples of tar archives (WebDataset's shards), which are then read in place, one by one.

        Files that follow each other and whose paths are equal up to the first dot of the name are one sample, as in
        WebDataset. A transform gets its dict: ``{"__key__": ..., "__url__": ..., "jpg": bytes, ...}``. Its bytes are
        fetched by one request, and each file's are compared with a CRC-32 before the transform sees them.

        Each archive is read once, to find its files and to sum them. If Megatron-Energon has written an index beside it
        (``.tar.idx``), that is read instead: then names and checksums are not known before a sample is read, and only
        the headers in the archive are compared.

        Args:
            s3_uris: archives (``"s3://bucket/train-{000..127}.tar"``), and prefixes below which all ``.tar`` are taken.
            region, endpoint, s3client_config: see ``S3Client``.
            use_index: whether to use Energon's index where there is one.
            progress_at: the URI of a prefix. What is found in an archive of more than 1 MiB is stored there as an
                object, and an archive whose object is there is not read: a process that was killed goes on where it
                was. The prefix is listed once.

        Raises:
            S3FormatError: there is no archive, or it is compressed, truncated, sparse, or has one file twice.
            S3NotFoundError: there is no such object.
            S3Exception: an error occurred accessing S3.
        """
        client = S3Client(region, endpoint=endpoint, s3client_config=s3client_config)
        uris = [s3_uris] if isinstance(s3_uris, str) else list(s3_uris)
        samples = Indexing(client, use_index, progress_at).samples(archives_of(client, uris))
        return cls(build_samples(ARCHIVES, samples, uris), client)

    @classmethod
    def from_parquet(
        cls: type[_M],
        s3_uris: str | Iterable[str],
        *,
        region: str,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
        columns: Collection[str] | None = None,
    ) -> _M:
        """Find the row groups of Parquet files, each of which is a sample. Needs the extra ``parquet``.

        A transform gets the row group as a ``pyarrow.Table``. Its bytes are fetched by one request, in the version of
        the file that was listed. The footer of each file is read to make the manifest, and once more by each process
        that decodes row groups of it, unless it lies right behind the row group.

        Args:
            s3_uris: files (``"s3://bucket/train-{000..127}.parquet"``), and prefixes below which all objects are taken
                whose keys end with ``.parquet``, ``.parq`` or ``.pq``.
            region, endpoint, s3client_config: see ``S3Client``.
            columns: names of those that are decoded; by default all. The bytes from the first to the last of them are
                fetched, with what lies between. Their order is that of the file.

        Raises:
            S3ConfigurationError: ``columns`` names none.
            S3FormatError: there is no such file, or one is no Parquet file, is truncated or encrypted, lacks a column,
                or has its data in other files.
            ImportError: pyarrow is missing.
            S3NotFoundError: there is no such object.
            S3Exception: an error occurred accessing S3.
        """
        names = [columns] if isinstance(columns, str) else None if columns is None else list(columns)
        if names is not None and not names:
            raise S3ConfigurationError("columns must name at least one column; None means all of them")
        client = S3Client(region, endpoint=endpoint, s3client_config=s3client_config)
        uris = [s3_uris] if isinstance(s3_uris, str) else list(s3_uris)
        return cls(build_samples(RECORDS, row_groups_of(client, uris, names), uris), client)

    @classmethod
    def from_mds(
        cls: type[_M],
        s3_uris: str | Iterable[str],
        *,
        region: str,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
    ) -> _M:
        """Find the samples of MDS shards, which MosaicML Streaming writes, to read them in place, one by one.

        A transform gets a dict of the columns' values: ``bytes``, ``str``, ``int``, numbers and arrays of NumPy, and
        what JSON has. Images (``jpeg``, ``png``, ``pil``) and pickles (``pkl``) remain the bytes that were stored. The
        bytes of a sample are fetched by one request, in the version of the shard that was listed.

        The index is read, its folder listed, and the table of each shard read, many at a time.

        Args:
            s3_uris: folders with an ``index.json``, or the URIs of such files.
            region, endpoint, s3client_config: see ``S3Client``.

        Raises:
            S3FormatError: an index or a shard is damaged, a shard is missing, or shards are compressed.
            ImportError: there are numbers or arrays of NumPy, which is missing.
            S3NotFoundError: there is no index.
            S3Exception: an error occurred accessing S3.
        """
        client = S3Client(region, endpoint=endpoint, s3client_config=s3client_config)
        uris = [s3_uris] if isinstance(s3_uris, str) else list(s3_uris)
        return cls(build_samples(RECORDS, _mds_shards.samples_of(client, uris), uris), client)
