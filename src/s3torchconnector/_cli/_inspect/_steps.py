"""One checkpoint of ``S3CheckpointManager``, from its manifest or its folder."""

from __future__ import annotations

import re

from s3torchconnector._checkpoint_manager._manifest import Manifest
from s3torchconnector._checkpoint_manager._store import Store
from s3torchconnector._cli._inspect._dcp import METADATA_NAME, describe_checkpoint
from s3torchconnector._cli._inspect._description import Description
from s3torchconnector._cli._inspect._objects import describe_object
from s3torchconnector._cli._inspect._remote_file import RemoteFile
from s3torchconnector._cli._output import iso_time
from s3torchconnector._s3client import S3Client

_STEP = re.compile(r"(.*/|)step-(\d{10})(\.json|/|)", re.ASCII | re.DOTALL)


def step_at(client: S3Client, bucket: str, key: str) -> tuple[Store, int] | None:
    """The step whose manifest or folder has this key; None if it has no such name."""
    match = _STEP.fullmatch(key)
    return None if match is None else (Store(f"s3://{bucket}/{match[1]}", client), int(match[2]))


def describe_step(store: Store, step: int) -> Description:
    """Describe a committed step.

    Raises:
        S3NotFoundError: it is not committed.
        S3FormatError: it is damaged.
        S3Exception: an error occurred accessing S3.
    """
    manifest = store.manifest(step)
    found = _describe(store, manifest)
    found.title = f"step {step} of S3CheckpointManager: {found.title}"
    found.facts = {"step": step, "stored": iso_time(manifest.stored), **found.facts}
    return found


def _describe(store: Store, manifest: Manifest) -> Description:
    key = store.key(manifest.step, manifest.path)
    if manifest.format == "dcp":
        metadata = RemoteFile(store.client, store.bucket, key + METADATA_NAME)
        return describe_checkpoint(store.client, store.bucket, key, metadata)
    [stored] = manifest.objects
    return describe_object(RemoteFile(store.client, store.bucket, store.key(manifest.step, stored.key)))
