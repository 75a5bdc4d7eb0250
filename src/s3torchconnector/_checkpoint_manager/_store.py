"""The checkpoints below one prefix: the committed ones, commits and deletions. No tensors."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import pairwise

from s3torchconnector._checkpoint_manager._manifest import (
    Format,
    Manifest,
    StoredObject,
    folder_of,
    manifest_of,
    parse_manifest,
    step_of,
)
from s3torchconnector._checkpoint_manager._retention import to_delete
from s3torchconnector._errors import (
    S3Exception,
    S3FormatError,
    S3NotFoundError,
    S3ObjectChangedError,
)
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer import CommitObject, Seen, refused_for_sure
from s3torchconnector._types import ObjectInfo
from s3torchconnector._uri import display_uri, parse_s3_uri
from s3torchconnector.s3reader import S3Reader
from s3torchconnector.s3reader._shown import shown

_log = logging.getLogger(__name__)


class Store:
    """The checkpoints below ``uri``.

    Raises:
        TypeError, ValueError: ``uri`` is not an ``s3://`` URI.
    """

    def __init__(self, uri: str, client: S3Client) -> None:
        self.bucket, key = parse_s3_uri(uri)
        self.client = client
        self.prefix = f"{key.rstrip('/')}/" if key.rstrip("/") else ""
        self._times: dict[tuple[int, str], int] = {}  # when a step was stored, by step and ETag of the manifest

    def key(self, step: int, name: str) -> str:
        """The key of an object of a step, from its name relative to the step's folder."""
        return f"{self.prefix}{folder_of(step)}{name}"

    def open(self, step: int, name: str) -> S3Reader:
        """Read an object of a step."""
        return self.client.get_object(self.bucket, self.key(step, name), reader_constructor=shown())

    def address(self, step: int, name: str) -> str:
        """The URI of an object or folder of a step, for ``torch.distributed.checkpoint``."""
        return f"s3://{self.bucket}/{self.key(step, name)}".rstrip("/")

    def uri(self, step: int, name: str = "") -> str:
        """The URI for an error text."""
        return display_uri(self.bucket, self.key(step, name))

    # -- what is there ------------------------------------------------------------------------------------------------

    def commits(self) -> dict[int, ObjectInfo]:
        """The manifests of all committed steps, by step, as a listing describes them."""
        pages = self.client.list_objects(self.bucket, self.prefix, "/")
        found = ((step_of(info.key.removeprefix(self.prefix)), info) for page in pages for info in page.object_info)
        return {step: info for step, info in found if step is not None}

    def steps(self) -> list[int]:
        """The committed steps, in the order in which they were committed.

        The times at which the manifests were stored tell it, unless a larger step seems to be no newer: the times in a
        copy of a bucket mean nothing, and those within one second are equal. Then the manifests are read.
        """
        commits = self.commits()
        ordered = sorted(commits)
        if all(commits[one].last_modified < commits[other].last_modified for one, other in pairwise(ordered)):
            return ordered
        lane = self.client._runtime().lane()
        asked = {step: lane.submit(partial(self._stored, step, commits[step])) for step in ordered}
        return sorted(ordered, key=lambda step: (asked[step].result(), step))

    def latest(self) -> int | None:
        """The step that was committed last, or None."""
        steps = self.steps()
        return steps[-1] if steps else None

    def _stored(self, step: int, manifest: ObjectInfo) -> int:
        """When a committed step was stored. Remembered, since a manifest never changes."""
        known = step, manifest.etag
        if known not in self._times:
            try:
                self._times[known] = self.manifest(step).stored
            except (S3FormatError, S3NotFoundError):
                return manifest.last_modified
        return self._times[known]

    def objects(self, step: int, path: str = "") -> list[ObjectInfo]:
        """The objects of one step, all or those below ``path``, with keys relative to its folder."""
        folder = self.key(step, "")
        pages = self.client.list_objects(self.bucket, folder + path)
        return [info._replace(key=info.key.removeprefix(folder)) for page in pages for info in page.object_info]

    def manifest(self, step: int) -> Manifest:
        """The manifest of a committed step.

        Raises:
            S3NotFoundError: the step is not committed.
            S3FormatError: the object in its place is not a manifest.
        """
        try:
            with self.client.get_object(self.bucket, self.manifest_key(step)) as reader:
                data = reader.read()
        except S3NotFoundError as error:
            error.message = f"there is no committed checkpoint of step {step} at {self.uri(step)}: {error.message}"
            raise
        return self._parsed(data, step)

    def _parsed(self, data: bytes, step: int) -> Manifest:
        try:
            return parse_manifest(data, step)
        except S3FormatError as error:
            key = self.manifest_key(step)
            text = f"{display_uri(self.bucket, key)} cannot be used: {error}"
            raise S3FormatError(text, bucket=self.bucket, key=key) from error

    def manifest_key(self, step: int) -> str:
        """The key of a step's manifest."""
        return f"{self.prefix}{manifest_of(step)}"

    # -- commits and deletions ----------------------------------------------------------------------------------------

    def commit(self, step: int, format: Format, path: str, stored: Mapping[str, tuple[int, str | None]]) -> None:
        """Commit the objects below ``path``, which are all stored, then delete the step's previous objects.

        Other objects in the step's folder are left alone: another job may be about to commit them.

        Args:
            stored: the objects that must be there, by key relative to the step's folder: size in bytes, and checksum,
                if it is known.

        Raises:
            S3ObjectChangedError: another job has committed the step in the meantime. This save is not committed.
            S3Exception: the save is not committed. The previous commit remains.
        """
        commit = CommitObject(self.client._runtime, self.bucket, self.manifest_key(step))
        seen = commit.look()
        there = self.objects(step, path)
        ours = tuple(StoredObject(info.key, info.size, info.etag, stored.get(info.key, (0, None))[1]) for info in there)
        sizes = {each.key: each.size for each in ours}
        lost = [key for key, (size, _) in stored.items() if sizes.get(key) != size]
        if lost or not ours:
            raise S3Exception(
                f"the checkpoint of step {step} was not committed: {self.uri(step, (lost or [path])[0])} is missing or "
                "has changed since it was stored. Does another process clean or save the same step?"
            )
        manifest = Manifest(step, format, path, max(info.last_modified for info in there), ours)
        try:
            commit.replace(seen, manifest.to_json())
        except S3Exception as error:
            if refused_for_sure(error):
                self._delete_quietly(step, sizes)
            raise
        self._delete_replaced(commit, seen, step)

    def _delete_replaced(self, commit: CommitObject, seen: Seen, step: int) -> None:
        """Delete the objects of the checkpoint that was replaced, if no manifest names them now."""
        if seen.data is None:
            return
        try:
            replaced = self._parsed(seen.data, step)
            kept = ""
            if not commit.stands(seen):
                _log.warning("another save has replaced %s right after this one had committed it", commit.uri)
                kept = self.manifest(step).path
        except S3ObjectChangedError:
            raise
        except S3Exception as error:
            _log.warning("the objects of the previous save of step %d remain: %s", step, error)
            return
        if replaced.path != kept:
            self._delete_quietly(step, [each.key for each in replaced.objects])

    def retain(self, keep_last: int, keep_every: int | None, saved: int) -> None:
        """Delete the checkpoints that are no longer kept, after ``saved`` was committed.

        Errors are logged: they are no reason to stop the job, and the next save tries again.
        """
        try:
            unneeded = to_delete(self.steps(), keep_last, keep_every, saved)
        except S3Exception as error:
            _log.warning("old checkpoints were not deleted, because they could not be listed: %s", error)
            return
        for step in unneeded:
            try:
                self.delete(step)
            except S3Exception as error:
                _log.warning("the old checkpoint of step %d could not be deleted: %s", step, error)

    def delete(self, step: int) -> None:
        """Delete a step: the manifest first, so that half of a checkpoint never counts as one.

        Then the objects that it named. Others in the folder are left to ``clean``: another job may be about to commit
        them.
        """
        names: Iterable[str] = ()
        try:
            names = [each.key for each in self.manifest(step).objects]
        except S3NotFoundError:
            return
        except S3FormatError as error:
            _log.warning("the objects of step %d remain until clean() deletes them: %s", step, error)
        self.client.delete_object(self.bucket, self.manifest_key(step))
        self.client.delete_objects(self.bucket, [self.key(step, name) for name in names])

    def _delete_quietly(self, step: int, names: Iterable[str]) -> None:
        try:
            self.client.delete_objects(self.bucket, [self.key(step, name) for name in names])
        except S3Exception as error:
            _log.warning("old objects of step %d could not be deleted: %s", step, error)
