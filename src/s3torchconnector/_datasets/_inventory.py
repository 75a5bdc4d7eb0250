"""The objects of a bucket from a report of S3 Inventory, for buckets that are too large to list.

A report is a ``manifest.json`` that names the files of the list, with their MD5, and the fields in them. See
https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html for both.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from s3torchconnector._datasets import _inventory_files
from s3torchconnector._datasets._build import Counted, build
from s3torchconnector._datasets._chosen_objects import Filter
from s3torchconnector._datasets._inventory_files import Listing, Record
from s3torchconnector._datasets._rows import Row, Rows
from s3torchconnector._errors import S3FormatError
from s3torchconnector._progress import Progress
from s3torchconnector._s3client import S3Client
from s3torchconnector._uri import parse_object_uri

_log = logging.getLogger(__name__)
_NEEDED = ("size", "etag")


@dataclass(frozen=True)
class Report:
    """What a ``manifest.json`` says.

    Attributes:
        uri: of it.
        source: the bucket whose objects are listed.
        created: when the list was begun, in seconds since 1970.
        files: the lists, in the bucket in which the report lies.
    """

    uri: str
    source: str
    created: int
    files: tuple[Listing, ...]

    @classmethod
    def fetched(cls, client: S3Client, uri: str) -> Report:
        """
        Raises:
            TypeError, ValueError: ``uri`` does not name an object.
            S3FormatError: it is no report, in a format that cannot be read, or without sizes or ETags.
            S3Exception: an error occurred accessing S3.
        """
        bucket, key = parse_object_uri(uri)
        with client.get_object(bucket, key) as reader:
            text = reader.read()
        try:
            return cls._parsed(uri, bucket, json.loads(text))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, S3FormatError):
                raise
            raise S3FormatError(
                f"{uri} is not the manifest.json of an S3 Inventory report: {error!r}. It lies beside "
                "manifest.checksum, in a folder that is named by a date"
            ) from error

    @classmethod
    def _parsed(cls, uri: str, bucket: str, manifest: dict[str, Any]) -> Report:
        schema = _inventory_files.schema_of(uri, manifest["fileFormat"], manifest["fileSchema"])
        for name in _NEEDED:
            if name not in schema.fields:
                raise S3FormatError(
                    f"the report {uri} does not tell the {name} of objects: add Size and ETag to the additional fields "
                    "of the inventory's configuration"
                )
        files = (
            Listing(bucket, each["key"], int(each["size"]), str(each["MD5checksum"]), schema)
            for each in manifest["files"]
        )
        return cls(uri, manifest["sourceBucket"], int(manifest["creationTimestamp"]) // 1000, tuple(files))


def objects_of(client: S3Client, report: Report, prefix: str, passing: Filter) -> Rows:
    """The objects of a report that pass, in key order, as a listing would have them.

    Raises:
        S3FormatError: a file of the report is damaged or not the one it names, or an object comes twice.
        S3Exception: an error occurred accessing S3.
    """
    rows = build(_Objects(client, report, prefix, passing), [report.uri], created=report.created)
    keys = rows.name_bytes
    if all(keys(i) < keys(i + 1) for i in range(len(rows) - 1)):
        return rows
    order = sorted(range(len(rows)), key=keys)
    for one, other in pairwise(order):
        if keys(one) == keys(other):
            raise S3FormatError(f"the report {report.uri} lists {rows[one].key!r} twice")
    return build(map(rows.row, order), [report.uri], created=report.created, archived=rows.header.archived)


class _Objects(Counted):
    """The objects that pass, in the order of the report; counts those that are archived."""

    def __init__(self, client: S3Client, report: Report, prefix: str, passing: Filter) -> None:
        self._client = client
        self._report = report
        self._prefix = prefix
        self._filter = passing

    def __iter__(self) -> Iterator[Row]:
        passes, self.archived = self._filter.compiled(), 0
        for record in self._records():
            info = record.info
            if not info.key.startswith(self._prefix) or not passes(info):
                continue
            if record.is_archived or self._filter.is_unreadable(info):
                self.archived += 1
            else:
                yield Row(self._report.source, info.key, info.size, info.etag)
        if self.archived:
            _log.warning(
                "%d objects of the report %s are archived and left out of the manifest", self.archived, self._report.uri
            )

    def _records(self) -> Iterable[Record]:
        switch, files = self._client.s3client_config.progress, self._report.files
        for listing in Progress(switch, "reading the report", "files", len(files)).each(files):
            yield from listing.records(self._client)
