"""The commit of a distributed save: ``.metadata`` replaces the previous one, whose files are then deleted."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch.distributed.checkpoint.metadata import Metadata

from s3torchconnector._errors import S3Exception, S3ObjectChangedError, S3ObjectExistsError
from s3torchconnector._transfer import CommitObject, Seen, delete_objects, refused_for_sure
from s3torchconnector._uri import display_uri, parse_object_uri, parse_s3_uri
from s3torchconnector.dcp._metadata import parse_storage_data
from s3torchconnector.dcp.s3_file_system import S3FileSystem

_log = logging.getLogger(__name__)


class Previous(NamedTuple):
    """The commit that a save saw, without its content, and the names of its files, if they are known."""

    seen: Seen
    files: set[str]


class MetadataCommit:
    """One save's commit.

    Args:
        folder: the checkpoint, which its files are below.
        path: its ``.metadata``.
    """

    def __init__(self, file_system: S3FileSystem, folder: str, path: str) -> None:
        self._file_system = file_system
        self._folder = folder
        self._place = parse_object_uri(path)
        self._object = CommitObject(file_system._client._runtime, *self._place)

    def look(self) -> Previous:
        """Look up the commit that is there, for ``replace``."""
        seen = self._object.look()
        names = self._names_in(seen) or set()
        return Previous(seen if seen.data is None else seen._replace(data=b""), names)

    def replace(self, previous: Previous, metadata: Metadata) -> None:
        """Commit ``metadata`` in place of ``previous``, then delete the files that only ``previous`` named.

        Raises:
            S3ObjectChangedError: another save has committed in the meantime. No file of this one remains.
            S3Exception: an error occurred accessing S3. The previous commit is still there.
        """
        try:
            self._object.replace(previous.seen, pickle.dumps(metadata))
        except S3Exception as error:
            self._delete_refused(metadata, error)
            raise
        self._delete_replaced(previous.seen, previous.files - files_of(metadata))

    def create(self, metadata: Metadata) -> None:
        """Commit ``metadata``, unless there is a commit.

        Raises:
            S3ObjectExistsError: the object exists. No file of this save remains.
            S3Exception: an error occurred accessing S3.
        """
        bucket, key = self._place
        try:
            with self._file_system._client.put_object(bucket, key, overwrite=False) as stream:
                stream.write(pickle.dumps(metadata))
        except S3Exception as error:
            self._delete_refused(metadata, error)
            raise

    def _delete_replaced(self, seen: Seen, replaced: set[str]) -> None:
        """Delete the files of the replaced checkpoint, unless the current one names them.

        Raises:
            S3ObjectChangedError: the replaced checkpoint is there again.
        """
        if not replaced:
            return
        try:
            if not self._object.stands(seen):
                _log.warning("another save has replaced %s right after this one had committed it", self._object.uri)
                named = self._names_in(self._object.read())
                if named is None:
                    return
                replaced -= named
        except S3ObjectChangedError:
            raise
        except S3Exception as error:
            uri = self._object.uri
            _log.warning("the files of the previous checkpoint remain, because %s cannot be read: %s", uri, error)
            return
        delete_files(self._file_system, self._folder, replaced)

    def _delete_refused(self, metadata: Metadata, error: S3Exception) -> None:
        """Delete the files of a refused save. If a response was lost, the commit may belong to this save: then keep
        them.
        """
        named: set[str] | None = set()
        if not refused_for_sure(error):
            if not isinstance(error, (S3ObjectExistsError, S3ObjectChangedError)):
                return  # it is unknown whether the save is committed
            try:
                seen = self._object.read()
            except S3Exception as failure:
                _log.warning("the files of a save remain, because %s cannot be read: %s", self._object.uri, failure)
                return
            if seen.data is None:
                return  # .metadata was deleted. An earlier attempt may still arrive, and be the commit
            named = self._names_in(seen)
        if named is not None:
            delete_files(self._file_system, self._folder, files_of(metadata) - named)

    def _names_in(self, seen: Seen) -> set[str] | None:
        """The files of the checkpoint that was seen; None if its ``.metadata`` cannot be read."""
        if seen.data is None:
            return set()
        try:
            return _files_in(parse_storage_data(seen.data))
        except Exception as error:  # whatever unpickling any bytes may raise
            uri = self._object.uri
            _log.warning("the files that %s names will remain, because it cannot be read: %r", uri, error)
            return None


def files_of(metadata: Metadata) -> set[str]:
    """The relative paths of all files that a checkpoint's metadata names."""
    return _files_in(metadata.storage_data or {})


def _files_in(storage_data: Mapping[Any, Any]) -> set[str]:
    return {info.relative_path for info in storage_data.values()}


def delete_files(file_system: S3FileSystem, folder: str, names: Iterable[str]) -> None:
    """Delete files below ``folder``. One that cannot be deleted is logged: it remains, and no reader uses it."""
    bucket, _ = parse_s3_uri(folder)
    keys = [parse_object_uri(file_system.concat_path(folder, name))[1] for name in names]
    for key, error in delete_objects(file_system._client._runtime(), bucket, keys).items():
        uri = display_uri(bucket, key)
        _log.warning("%s, which is not part of the checkpoint, could not be deleted: %s", uri, error)
