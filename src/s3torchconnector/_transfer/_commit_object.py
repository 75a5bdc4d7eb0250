"""The object that commits a checkpoint: a file belongs to the checkpoint if the commit names it, and only then.

A save looks at the commit that exists, stores its data under new names, and then replaces exactly the commit that it
saw (``If-Match``, or ``If-None-Match: *``). So of all saves that saw one commit at most one succeeds, even if responses
are lost. The others fail, and their data was never part of a checkpoint. Only after that, and after one more look, may
the data be deleted that the replaced commit named: servers that ignore conditions may have carried out an old request
again.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from s3torchconnector._errors import S3Exception, S3NotFoundError, S3ObjectChangedError, S3ObjectExistsError
from s3torchconnector._transfer.engine._runtime import OpenRuntime
from s3torchconnector._transfer.reading._object_reader import ObjectReader
from s3torchconnector._transfer.reading._object_version import ObjectVersion
from s3torchconnector._transfer.reading._read_policy import ADAPTIVE
from s3torchconnector._transfer.writing._put_object_stream import PutObjectStream
from s3torchconnector._transfer.writing._write_condition import Conditional, CreateOnly, Overwrite, ReplaceVersion
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import describe, operations

_log = logging.getLogger(__name__)


class Seen(NamedTuple):
    """The commit that a save saw before it replaces it.

    Attributes:
        known: whether S3 said what there is.
        etag: of the commit; None if there was none, or S3 said no ETag.
        data: its content; None if there was none.
    """

    known: bool
    etag: str | None = None
    data: bytes | None = None

    def condition(self) -> Overwrite:
        """The write condition that replaces exactly this commit."""
        if not self.known:
            return Overwrite()
        if self.data is None:
            return CreateOnly(needed=False)
        strong = self.etag and not self.etag.startswith("W/")  # a weak one never matches
        return ReplaceVersion(self.etag) if self.etag and strong else Overwrite()


class CommitObject:
    """One save's view of the commit at a key."""

    def __init__(self, open_runtime: OpenRuntime, bucket: str, key: str) -> None:
        self._open_runtime = open_runtime
        self._bucket = bucket
        self._key = key
        self._condition = Overwrite()

    @property
    def uri(self) -> str:
        return display_uri(self._bucket, self._key)

    def read(self) -> Seen:
        """The commit that exists now.

        Raises:
            S3Exception: an error occurred accessing S3.
        """
        version = ObjectVersion(self._bucket, self._key)
        reader = ObjectReader(self._open_runtime, version, ADAPTIVE)
        try:
            return Seen(True, data=reader.read_to_end(0), etag=version.etag)
        except S3NotFoundError as error:
            if error.code == "NoSuchBucket":
                raise
            return Seen(True)
        finally:
            reader.close()

    def look(self) -> Seen:
        """``read``, for a save: if the commit cannot be read, that is no reason to lose what was saved."""
        try:
            return self.read()
        except S3Exception as error:
            _log.warning(
                "%s cannot be read, and is replaced anyway. The files that it names will remain: %s",
                self.uri,
                error,
            )
            return Seen(False)

    def replace(self, seen: Seen, data: bytes) -> None:
        """Commit ``data`` in place of what was ``seen``.

        Raises:
            S3ObjectChangedError: another save has committed since, or deleted the commit.
            S3Exception: an error occurred accessing S3.
        """
        self._condition = seen.condition()
        stream = PutObjectStream(self._open_runtime, self._bucket, self._key, condition=self._condition)
        try:
            stream.write(data)
            stream.close()
        except (S3ObjectExistsError, S3ObjectChangedError) as error:
            raise self._refusal(error) from error
        except BaseException:
            stream.abort()
            raise

    def stands(self, seen: Seen) -> bool:
        """Whether what ``replace`` stored is still the commit. If not, another save has replaced it.

        Raises:
            S3ObjectChangedError: the commit is again what was ``seen``: a request that was sent long ago was carried
                out now, on a server that ignores conditions.
            S3Exception: an error occurred accessing S3.
        """
        request = operations.head_object(self._bucket, self._key)
        headers = describe(self._open_runtime().caller, request).headers
        if isinstance(self._condition, Conditional) and self._condition.wrote(headers):
            return True
        if seen.etag and headers.get("etag") == seen.etag:
            raise S3ObjectChangedError(
                f"{self.uri} is again what it was before this save: another job is saving to the same place, and the "
                "server ignores conditions (If-Match). End the other job, then save again",
                bucket=self._bucket,
                key=self._key,
            )
        return False

    def _refusal(self, error: S3Exception) -> S3ObjectChangedError:
        names = ("operation", "bucket", "key", "status", "code", "request_id", "attempts", "resent")
        facts = {name: getattr(error, name) for name in names}
        return S3ObjectChangedError(
            f"this save is not committed: {self.uri} was replaced or deleted while it was under way, so another job is "
            f"saving to the same place. End one of the two, then save again ({error})",
            **facts,
        )


def refused_for_sure(error: S3Exception) -> bool:
    """Whether only one request was sent, and refused, so that the files that it would have named can be deleted."""
    refused = error.status is not None and 400 <= error.status < 500 and error.status not in (408, 499)
    return refused and (error.attempts or 1) == 1 and not error.resent
