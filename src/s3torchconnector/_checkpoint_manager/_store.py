"""Committed checkpoints below one prefix: what is there, commits and deletions. No tensors."""

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
        self._times: dict[tuple[int, str], int] = {}  # when steps were stored, by step and ETag of the manifest

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

    def commits(self) -> dict[int, ObjectInfo]:
        """The manifests of all committed steps, by step."""
        pages = self.client.list_objects(self.bucket, self.prefix, "/")
        found = ((step_of(info.key.removeprefix(self.prefix)), info) for page in pages for info in page.object_info)
        return {step: info for step, info in found if step is not None}

    def steps(self) -> list[int]:
        """The committed steps, in the order in which they were committed.

        The times at which manifests were stored tell it, except where a larger step seems to be no newer: those of a
        bucket that was copied are not to be trusted, and those of one second alike. Then the manifests are read.
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
        """When a committed step was stored. Remembered, since a manifest is never changed."""
        known = step, manifest.etag
        if known not in self._times:
            try:
                self._times[known] = self.manifest(step).stored
            except (S3FormatError, S3NotFoundError):
                return manifest.last_modified
        return self._times[known]

    def objects(self, step: int, path: str = "") -> list[ObjectInfo]:
        """The objects of one step, all or those below ``path``; keys are those behind its folder."""
        folder = self.key(step, "")
        pages = self.client.list_objects(self.bucket, folder + path)
        return [info._replace(key=info.key.removeprefix(folder)) for page in pages for info in page.object_info]

    def manifest(self, step: int) -> Manifest:
        """The manifest of a committed step.

        Raises:
            S3NotFoundError: the step is not committed.
            S3FormatError: what is in its place is no manifest.
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
        return f"{self.prefix}{manifest_of(step)}"

    # -- commits and deletions ----------------------------------------------------------------------------------------

    def commit(self, step: int, format: Format, path: str, stored: Mapping[str, tuple[int, str | None]]) -> None:
        """Publish the objects below ``path``, which are all stored, then delete those that were the step's before.

        What else is in the step's folder is left alone: another job may be about to commit it.

        Args:
            stored: the objects that must be there, by key behind the step's folder: size in bytes, and checksum
                where that is known.

        Raises:
            S3ObjectChangedError: another job has committed the step meanwhile, and this one is not.
            S3Exception: nothing is published; what was committed before still is.
        """
        commit = CommitObject(self.client._runtime, self.bucket, self.manifest_key(step))
        seen = commit.look()
        there = self.objects(step, path)
        ours = tuple(StoredObject(info.key, info.size, info.etag, stored.get(info.key, (0, None))[1]) for info in there)
        sizes = {each.key: each.size for each in ours}
        lost = [key for key, (size, _) in stored.items() if sizes.get(key) != size]
        if lost or not ours:
            raise S3Exception(
                f"the checkpoint of step {step} was not committed: {self.uri(step, (lost or [path])[0])} is not what "
                "was stored there a moment ago; does another process clean or save the same step?"
            )
        manifest = Manifest(step, format, path, max(info.last_modified for info in there), ours)
        try:
            commit.replace(seen, manifest.to_json())
        except S3Exception as error:
            if refused_for_sure(error):
                self._delete_quietly(step, sizes)
            raise
        self._clear(commit, seen, step)

    def _clear(self, commit: CommitObject, seen: Seen, step: int) -> None:
        """Delete the objects of the checkpoint that was replaced, if no manifest names them any more."""
        if seen.data is None:
            return
        try:
            replaced = self._parsed(seen.data, step)
            kept = ""
            if not commit.stands(seen):
                _log.warning("%s was replaced by another save as soon as this one had committed it", commit.uri)
                kept = self.manifest(step).path
        except S3ObjectChangedError:
            raise
        except S3Exception as error:
            _log.warning("what an earlier save of step %d stored remains: %s", step, error)
            return
        if replaced.path != kept:
            self._delete_quietly(step, [each.key for each in replaced.objects])

    def retain(self, keep_last: int, keep_every: int | None, saved: int) -> None:
        """Delete what need not be kept, when ``saved`` was committed.

        No error is a reason to stop the job, and the next save tries again.
        """
        try:
            unneeded = to_delete(self.steps(), keep_last, keep_every, saved)
        except S3Exception as error:
            _log.warning("which checkpoints need not be kept could not be found out: %s", error)
            return
        for step in unneeded:
            try:
                self.delete(step)
            except S3Exception as error:
                _log.warning("the checkpoint of step %d need not be kept, and could not be deleted: %s", step, error)

    def delete(self, step: int) -> None:
        """Delete a step: the manifest first, so that no half of it is ever taken for a checkpoint.

        Then what it named. What else is in its folder is left to ``clean``: another job may be about to commit it.
        """
        names: Iterable[str] = ()
        try:
            names = [each.key for each in self.manifest(step).objects]
        except S3NotFoundError:
            return
        except S3FormatError as error:
            _log.warning("the objects of step %d remain, until they are cleaned: %s", step, error)
        self.client.delete_object(self.bucket, self.manifest_key(step))
        self.client.delete_objects(self.bucket, [self.key(step, name) for name in names])

    def _delete_quietly(self, step: int, names: Iterable[str]) -> None:
        try:
            self.client.delete_objects(self.bucket, [self.key(step, name) for name in names])
        except S3Exception as error:
            _log.warning("what an earlier save of step %d left could not be deleted: %s", step, error)
