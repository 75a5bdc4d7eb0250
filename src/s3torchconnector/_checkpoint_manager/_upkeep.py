"""Upkeep: checkpoints are verified, and what interrupted saves left is deleted."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from s3torchconnector._checkpoint_manager._manifest import StoredObject, difference, differences, split_key
from s3torchconnector._checkpoint_manager._store import Store
from s3torchconnector._config import MIB
from s3torchconnector._errors import S3ChecksumError, S3FormatError, S3NotFoundError, S3ProtocolError, S3ServiceError
from s3torchconnector._listing_results import UploadInfo
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import Response, algorithm_of, operations, parse_http_date, read_document

_log = logging.getLogger(__name__)
_PIECE = 4 * MIB


def _date_of(response: Response) -> int:
    read_document(response)
    return parse_http_date(response.headers.get("date", ""))


class Leftovers(NamedTuple):
    """What interrupted saves and deletions left: the URIs of objects, and of the objects of unfinished uploads."""

    objects: list[str]
    uploads: list[str]


def verify(store: Store, step: int) -> None:
    """Compare a committed step with its manifest.

    Raises:
        S3FormatError: objects are missing or different. The text names all of them.
    """
    manifest = store.manifest(step)
    wrong = differences(manifest, _found(store, step))
    if not wrong:
        wrong = [f"{each.key} has other content" for each in manifest.objects if not _is_whole(store, step, each)]
    if wrong:
        raise S3FormatError(
            f"the checkpoint of step {step} at {store.uri(step)} is damaged: {'; '.join(wrong)}. Load another step, "
            "and delete this one",
            bucket=store.bucket,
            key=store.manifest_key(step),
        )


def compared(store: Store, step: int, *, read: bool) -> Iterator[tuple[StoredObject, str | None]]:
    """Each object of a committed step, and what is wrong with it; None if nothing is.

    Args:
        read: whether to read them, too. Sizes and ETags are compared in any case.
    """
    there = {each.key: each for each in _found(store, step)}
    for described in store.manifest(step).objects:
        wrong = difference(described, there.get(described.key))
        if wrong is None and read and not _is_whole(store, step, described):
            wrong = f"{described.key} has other content"
        yield described, wrong


def _found(store: Store, step: int) -> list[StoredObject]:
    return [StoredObject(info.key, info.size, info.etag, None) for info in store.objects(step)]


def _is_whole(store: Store, step: int, described: StoredObject) -> bool:
    """Read all of it. The reader compares it with the checksum that S3 keeps, if there is one."""
    algorithm = algorithm_of(described.checksum or "")
    if described.checksum and algorithm is None:
        _log.warning(
            "%s of %s is not compared: that needs the extra checksums: from the checkout, pip install '.[checksums]'",
            described.checksum,
            described.key,
        )
    crc, buffer = 0, memoryview(bytearray(_PIECE))
    try:
        with store.open(step, described.key) as reader:
            while count := reader.readinto(buffer):
                if algorithm is not None:
                    crc = algorithm.update(buffer[:count], crc)
    except S3ChecksumError as error:
        _log.warning("%s: %s", store.uri(step, described.key), error)
        return False
    return algorithm is None or algorithm.describe(crc) == described.checksum


def clean(store: Store, *, dry_run: bool, min_age: float) -> Leftovers:
    """Find what interrupted saves left, and delete it unless ``dry_run``: see ``S3CheckpointManager.clean``."""
    latest = time_of(store) - min_age
    committed = store.commits()
    keys = []
    for step, names in _old(store, latest).items():
        # The manifest as it is now, not by the listing: what was committed since then must not be deleted.
        try:
            path = store.manifest(step).path
        except S3NotFoundError:
            if step in committed:
                continue  # deleted since it was listed, by a process that deletes the objects as well
            path = None
        except S3FormatError as error:
            _log.warning("step %d is not cleaned, because its manifest cannot be read: %s", step, error)
            continue
        left = [store.key(step, name) for name in names if path is None or not name.startswith(path)]
        if not dry_run:
            store.client.delete_objects(store.bucket, left)
        keys += left
    uploads = [upload for upload in _uploads(store) if upload.initiated <= latest]
    if not dry_run:
        for upload in uploads:
            store.client.abort_multipart_upload(store.bucket, upload.key, upload.upload_id)
    return Leftovers(
        [display_uri(store.bucket, key) for key in keys], [display_uri(store.bucket, each.key) for each in uploads]
    )


def _old(store: Store, latest: float) -> dict[int, list[str]]:
    """The objects in steps' folders, committed or not, that are not younger, by their names relative to the folders."""
    found: dict[int, list[str]] = defaultdict(list)
    for page in store.client.list_objects(store.bucket, store.prefix):
        for info in page.object_info:
            place = split_key(info.key.removeprefix(store.prefix))
            if place is not None and info.last_modified <= latest:
                found[place[0]].append(place[1])
    return found


def time_of(store: Store) -> float:
    """The time by S3's clock, as the times of objects are. This machine's clock may be hours off.

    Raises:
        S3ProtocolError: S3 does not tell the time.
    """
    request = operations.list_objects(store.bucket, store.prefix, max_keys=1)
    date = store.client._runtime().caller.call(request, _date_of)
    if not date:
        raise S3ProtocolError("the age of objects is unknown: the server's response has no valid Date header")
    return date


def _uploads(store: Store) -> list[UploadInfo]:
    """The unfinished multipart uploads in steps' folders; none, with a warning, if the server cannot list them."""
    found = store.client.list_multipart_uploads(store.bucket, store.prefix)
    try:
        return [upload for upload in found if split_key(upload.key.removeprefix(store.prefix)) is not None]
    except S3ServiceError as error:
        if error.status not in (405, 501):
            raise
        uri = display_uri(store.bucket, store.prefix)
        _log.warning("unfinished multipart uploads below %s could not be listed, and may remain: %s", uri, error)
        return []
