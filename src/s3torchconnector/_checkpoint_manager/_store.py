"""Committed checkpoints below one prefix: what is there, commits, deletions and verification. No tensors."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from s3torchconnector._checkpoint_manager._manifest import (
    MANIFEST,
    Format,
    Manifest,
    StoredObject,
    differences,
    folder_of,
    parse_manifest,
    split_key,
)
from s3torchconnector._config import MIB
from s3torchconnector._errors import S3ChecksumError, S3Exception, S3FormatError, S3NotFoundError
from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo, UploadInfo
from s3torchconnector._uri import display_uri, parse_s3_uri
from s3torchconnector._wire import algorithm_of
from s3torchconnector.s3writer import S3Writer

_log = logging.getLogger(__name__)
_PIECE = 4 * MIB


class Leftovers(NamedTuple):
    """What interrupted saves and deletions left: URIs of objects, and of what multipart uploads would have become."""

    objects: list[str]
    uploads: list[str]


class Store:
    """The checkpoints below ``uri``.

    Raises:
        TypeError, ValueError: ``uri`` is not an ``s3://`` URI.
    """

    def __init__(self, uri: str, client: S3Client) -> None:
        self.bucket, key = parse_s3_uri(uri)
        self.client = client
        self.prefix = f"{key.rstrip('/')}/" if key.rstrip("/") else ""

    def key(self, step: int, name: str) -> str:
        """The key of an object of a step, by its name behind the step's folder."""
        return f"{self.prefix}{folder_of(step)}{name}"

    def address(self, step: int, name: str) -> str:
        """The URI of an object or folder of a step, for ``torch.distributed.checkpoint``."""
        return f"s3://{self.bucket}/{self.key(step, name)}".rstrip("/")

    def uri(self, step: int, name: str = "") -> str:
        """The URI as it may stand in an error."""
        return display_uri(self.bucket, self.key(step, name))

    # -- what is there ------------------------------------------------------------------------------------------------

    def inventory(self) -> dict[int, list[ObjectInfo]]:
        """All objects of all steps, committed or not; keys are those behind the step's folder."""
        found: dict[int, list[ObjectInfo]] = defaultdict(list)
        for page in self.client.list_objects(self.bucket, self.prefix):
            for info in page.object_info:
                place = split_key(info.key.removeprefix(self.prefix))
                if place is not None:
                    found[place[0]].append(info._replace(key=place[1]))
        return dict(found)

    def steps(self) -> list[int]:
        return sorted(
            step for step, objects in self.inventory().items() if any(info.key == MANIFEST for info in objects)
        )

    def objects(self, step: int) -> list[ObjectInfo]:
        """The objects of one step; keys are those behind its folder."""
        folder = self.key(step, "")
        pages = self.client.list_objects(self.bucket, folder)
        return [info._replace(key=info.key.removeprefix(folder)) for page in pages for info in page.object_info]

    def manifest(self, step: int) -> Manifest:
        """The manifest of a committed step.

        Raises:
            S3NotFoundError: the step is not committed.
            S3FormatError: what is in its place is no manifest.
        """
        try:
            with self.client.get_object(self.bucket, self.key(step, MANIFEST)) as reader:
                data = reader.read()
        except S3NotFoundError as error:
            error.message = f"there is no committed checkpoint of step {step} at {self.uri(step)}: {error.message}"
            raise
        try:
            return parse_manifest(data, step)
        except S3FormatError as error:
            text = f"{self.uri(step, MANIFEST)} cannot be used: {error}"
            raise S3FormatError(text, bucket=self.bucket, key=self.key(step, MANIFEST)) from error

    # -- commits and deletions ----------------------------------------------------------------------------------------

    def commit(self, step: int, format: Format, path: str, stored: Mapping[str, tuple[int, str | None]]) -> None:
        """Publish the objects below ``path``, which are all stored, then delete what else the step's folder has.

        Args:
            stored: the objects that must be there, by key behind the step's folder: size in bytes, and checksum
                where that is known.

        Raises:
            S3Exception: nothing is published; what was committed before still is.
        """
        there = self.objects(step)
        ours = tuple(
            StoredObject(info.key, info.size, info.etag, stored.get(info.key, (0, None))[1])
            for info in there
            if info.key.startswith(path)
        )
        sizes = {each.key: each.size for each in ours}
        lost = [key for key, (size, _) in stored.items() if sizes.get(key) != size]
        if lost or not ours:
            raise S3Exception(
                f"the checkpoint of step {step} was not committed: {self.uri(step, (lost or [path])[0])} is not what "
                "was stored there a moment ago; does another process clean or save the same step?"
            )
        manifest = Manifest(step, format, path, ours)
        with S3Writer(self.client.put_object(self.bucket, self.key(step, MANIFEST))) as writer:
            writer.write(manifest.to_json())
        self._delete_quietly(step, [info.key for info in there if info.key != MANIFEST and info.key not in sizes])

    def delete(self, step: int) -> None:
        """Delete a step: the manifest first, so that no half of it is ever taken for a checkpoint."""
        self.client.delete_object(self.bucket, self.key(step, MANIFEST))
        self.client.delete_objects(self.bucket, [self.key(step, info.key) for info in self.objects(step)])

    def _delete_quietly(self, step: int, names: list[str]) -> None:
        try:
            self.client.delete_objects(self.bucket, [self.key(step, name) for name in names])
        except S3Exception as error:
            _log.warning("what an earlier save of step %d left could not be deleted: %s", step, error)

    # -- verification and cleaning ------------------------------------------------------------------------------------

    def verify(self, step: int) -> None:
        """Compare a committed step with its manifest.

        Raises:
            S3FormatError: something is missing or different; all of it is named.
        """
        manifest = self.manifest(step)
        found = [StoredObject(info.key, info.size, info.etag, None) for info in self.objects(step)]
        wrong = differences(manifest, found)
        if not wrong:
            wrong = [f"{each.key} has other bytes" for each in manifest.objects if not self._is_whole(step, each)]
        if wrong:
            raise S3FormatError(
                f"the checkpoint of step {step} at {self.uri(step)} is damaged: {'; '.join(wrong)}. Load another step, "
                "and delete this one",
                bucket=self.bucket,
                key=self.key(step, MANIFEST),
            )

    def _is_whole(self, step: int, described: StoredObject) -> bool:
        """Read it all: the reader compares what comes with the checksum that S3 keeps, where it keeps one."""
        algorithm = algorithm_of(described.checksum or "")
        if described.checksum and algorithm is None:
            _log.warning("%s of %s is not compared: it takes the extra 'checksums'", described.checksum, described.key)
        crc, buffer = 0, memoryview(bytearray(_PIECE))
        try:
            with self.client.get_object(self.bucket, self.key(step, described.key)) as reader:
                while count := reader.readinto(buffer):
                    if algorithm is not None:
                        crc = algorithm.update(buffer[:count], crc)
        except S3ChecksumError as error:
            _log.warning("%s: %s", self.uri(step, described.key), error)
            return False
        return algorithm is None or algorithm.describe(crc) == described.checksum

    def clean(self, *, dry_run: bool, min_age: float) -> Leftovers:
        """List what interrupted saves left, and delete it unless ``dry_run``; see ``S3CheckpointManager.clean``."""
        latest = time.time() - min_age
        keys = []
        for step, objects in self.inventory().items():
            path = None
            if any(info.key == MANIFEST for info in objects):
                try:
                    path = self.manifest(step).path
                except S3NotFoundError:
                    continue  # deleted since it was listed, by who deletes the rest as well
                except S3FormatError as error:
                    _log.warning("what step %d has besides its checkpoint cannot be told: %s", step, error)
                    continue
            keys += [
                self.key(step, info.key)
                for info in objects
                if info.key != MANIFEST and info.last_modified <= latest and not (path and info.key.startswith(path))
            ]
        uploads = [upload for upload in self._uploads() if upload.initiated <= latest]
        if not dry_run:
            self.client.delete_objects(self.bucket, keys)
            for upload in uploads:
                self.client.abort_multipart_upload(self.bucket, upload.key, upload.upload_id)
        return Leftovers(
            [display_uri(self.bucket, key) for key in keys], [display_uri(self.bucket, each.key) for each in uploads]
        )

    def _uploads(self) -> list[UploadInfo]:
        found = self.client.list_multipart_uploads(self.bucket, self.prefix)
        return [upload for upload in found if split_key(upload.key.removeprefix(self.prefix)) is not None]
