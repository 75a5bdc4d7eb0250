"""The objects that the doctor writes: a few small ones below a separate prefix, recorded before they are sent."""

from __future__ import annotations

import time
import uuid

from s3torchconnector._errors import S3Exception
from s3torchconnector._uri import display_uri
from s3torchconnector._wire import Caller, Request, operations, parse_uploads_page
from s3torchconnector._wire import _probe as probe

_TOTAL_SECONDS = 15.0  # for removing all of it
GONE = (404, 410)  # statuses of what is not there


class Scratch:
    """See the module.

    Attributes:
        prefix: what the keys begin with. It begins with the prefix that is examined, which a policy may demand.
        was_given_up: whether an attempt to remove it has failed.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self.prefix = f"{prefix}.s3torch-doctor-{uuid.uuid4().hex[:12]}/"
        self._bucket = bucket
        self._keys: list[str] = []
        self._uploads: dict[str, str] = {}
        self._may_have_more_uploads = False
        self._versions: list[tuple[str, str]] = []
        self.was_given_up = False

    def __str__(self) -> str:
        return display_uri(self._bucket, self.prefix)

    @property
    def keys(self) -> list[str]:
        """What may be stored."""
        return list(self._keys)

    @property
    def uploads(self) -> list[str]:
        """The ids of multipart uploads that are unfinished."""
        return list(self._uploads)

    @property
    def is_known(self) -> bool:
        """Whether something is there for certain, or was about to be stored."""
        return bool(self._keys or self._uploads)

    @property
    def is_empty(self) -> bool:
        """Whether nothing can be there."""
        return not (self.is_known or self._may_have_more_uploads)

    def how_to_remove(self, options: str) -> str:
        """What to type. ``options`` are those of AWS's command line."""
        commands = [f"aws s3 rm --recursive {self} {options}"] if self._keys else []
        commands += [
            f"aws s3api abort-multipart-upload --bucket {self._bucket} --key {key} --upload-id {upload} {options}"
            for upload, key in self._uploads.items()
        ]
        return "with credentials that may: " + "; ".join(commands)

    def key(self, name: str) -> str:
        """The key of an object that is about to be stored."""
        key = self.prefix + name
        if key not in self._keys:
            self._keys.append(key)
        return key

    def begin_upload(self) -> None:
        """A multipart upload is about to be created."""
        self._may_have_more_uploads = True

    def note_upload(self, key: str, upload_id: str | None) -> None:
        """It was created, or with None for certain not."""
        self._may_have_more_uploads = False
        if upload_id is not None:
            self._uploads[upload_id] = key

    def forget(self, key_or_upload: str) -> None:
        """This is gone."""
        self._uploads.pop(key_or_upload, None)
        if key_or_upload in self._keys:
            self._keys.remove(key_or_upload)

    def note_version(self, key: str, reply: probe.Reply) -> probe.Reply:
        """In a bucket that keeps versions, each response that stores or deletes names one. Returns ``reply``."""
        version = reply.headers.get("x-amz-version-id", "null")
        if reply.is_good and version != "null":
            self._versions.append((key, version))
        return reply

    def remove(self, caller: Caller) -> None:
        """Remove all of it, as far as S3 lets us; ``is_empty`` says whether that was everything."""
        until = time.perf_counter() + _TOTAL_SECONDS
        if self._may_have_more_uploads:
            self._find_uploads(caller, until)
        for upload, key in list(self._uploads.items()):
            if self._is_gone(caller, operations.abort_multipart_upload(self._bucket, key, upload), until):
                self.forget(upload)
        for key in self.keys:
            if self._is_gone(caller, operations.delete_object(self._bucket, key), until):
                self.forget(key)
        self.remove_versions(caller, until)

    def remove_versions(self, caller: Caller, until: float | None = None) -> bool:
        """Remove older versions and delete markers, which takes the permission ``s3:DeleteObjectVersion``."""
        until = until or time.perf_counter() + _TOTAL_SECONDS
        while self._versions:
            key, version = self._versions[-1]
            request = operations.of_version(operations.delete_object(self._bucket, key), version)
            if not self._is_gone(caller, request, until):
                return False
            self._versions.pop()
        return True

    def _is_gone(self, caller: Caller, request: Request, until: float) -> bool:
        """Send what deletes something. Whether it is gone; an error must not keep the rest from being deleted."""
        try:
            reply = probe.ask(caller, request, max(0.1, until - time.perf_counter()))
        except S3Exception:
            return False
        if request.operation == "DeleteObject" and not any(name == "versionId" for name, _ in request.query):
            self.note_version(request.key, reply)
        return reply.is_good or reply.status in GONE

    def _find_uploads(self, caller: Caller, until: float) -> None:
        """Find an upload whose creation had no response."""
        request = operations.list_multipart_uploads(self._bucket, self.prefix)
        try:
            reply = probe.ask(caller, request, max(0.1, until - time.perf_counter()))
            found = parse_uploads_page(reply.body).uploads if reply.is_good else None
        except S3Exception:
            return
        if found is not None:
            self._may_have_more_uploads = False
            self._uploads |= {each.upload_id: each.key for each in found if each.key.startswith(self.prefix)}
