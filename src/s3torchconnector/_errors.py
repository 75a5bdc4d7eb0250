"""Every error this package raises, as one tree, which ``s3torchconnector.errors`` draws and exports.

Each carries what a program needs to decide, and a text that says what failed, on which object, why and what to do next.
They pickle, because they cross DataLoader workers. No code of ours compares their text; the first words of some are
kept as programs written for the native connector match them.
"""

from __future__ import annotations

import errno as _errno
from typing import Any


class S3Exception(Exception):
    """An error occurred accessing S3: the root of everything that this package raises about S3.

    Attributes:
        operation: the S3 action, for example ``"GetObject"``; None if no request was made.
        bucket, key: the object concerned, if there is one.
        status: the HTTP status, if S3 responded.
        code: S3's error code, for example ``"NoSuchKey"``.
        request_id: the id to quote to AWS Support.
        attempts: how many times the request was tried.
        resent: whether an attempt was sent twice, because a kept-alive connection turned out to be closed.
        retry_after: the seconds after which S3 asked for the next attempt, if it did.

    Example:
        >>> from s3torchconnector import S3Checkpoint, S3Exception
        >>> try:
        ...     S3Checkpoint("us-east-1").reader("s3://my-bucket/no-such-object").read()
        ... except S3Exception as error:
        ...     print(error.operation, error.key, error.code)
        GetObject no-such-object NoSuchKey
    """

    operation: str | None = None
    bucket: str | None = None
    key: str | None = None
    status: int | None = None
    code: str | None = None
    request_id: str | None = None
    attempts: int | None = None
    resent: bool = False
    retry_after: float | None = None
    _would_succeed_again = False  # of an upload: if written again, it goes without what the server refused

    def __init__(self, *args: Any, **facts: Any) -> None:
        super().__init__(*args)
        # Programs raise this class too, with any arguments or none, as they may raise an Exception.
        self.message = str(Exception(*args))
        for name, value in facts.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        # OSError, mixed in below, would print an errno instead of the sentence.
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, dict(self.__dict__)


class S3ConfigurationError(S3Exception, ValueError):
    """A setting cannot work. The text names the field and its value."""


class S3CredentialsError(S3Exception):
    """No usable credentials. The text says where they were looked for."""


class S3ConnectionError(S3Exception, ConnectionError):
    """There was no complete response: the connection was refused, reset, or cut off, or the host is unknown."""


class S3TimeoutError(S3ConnectionError, TimeoutError):
    """There was no complete response within the configured time."""

    errno = _errno.ETIMEDOUT


class S3ProtocolError(S3Exception):
    """The response is not S3's, or not what was asked for (wrong range, broken framing, malformed XML)."""


class S3ChecksumError(S3ProtocolError):
    """The bytes received, also when they were requested again, do not have the checksum that S3 keeps of the object.

    Or there is no checksum to compare with, and the configuration says ``checksum="required"``.

    Attributes:
        start, stop: the range of the object in which the wrong bytes are: from ``start`` up to, but not including,
            ``stop``.
    """

    start: int | None = None
    stop: int | None = None


class S3FormatError(S3Exception, ValueError):
    """An object was received as it is stored, but its content is not in the format (safetensors, a manifest)."""


class S3ServiceError(S3Exception):
    """S3 responded with an error."""


class S3NotFoundError(S3ServiceError, FileNotFoundError):
    """The bucket, key or upload does not exist."""

    errno = _errno.ENOENT


class S3AccessDeniedError(S3ServiceError, PermissionError):
    """These credentials are not allowed to do this, or S3 did not accept them."""

    errno = _errno.EACCES


class S3ObjectArchivedError(S3ServiceError):
    """The object is in an archive (Glacier, or a tier of Intelligent-Tiering), and must be restored before it is read.

    Attributes:
        storage_class: the object's, if S3 told it.
        access_tier: for Intelligent-Tiering, ``"ARCHIVE_ACCESS"`` or ``"DEEP_ARCHIVE_ACCESS"``; else None.
    """

    storage_class: str | None = None
    access_tier: str | None = None


class S3WrongRegionError(S3ServiceError):
    """The bucket is in another region than the one the client was made for.

    Attributes:
        region: the bucket's region, if S3 told it.
    """

    region: str | None = None


class S3ObjectChangedError(S3ServiceError):
    """The object was overwritten while it was being read. Versions are never mixed: open it again.

    Or, of two saves of one checkpoint at the same time, this one was not committed.
    """


class S3ObjectExistsError(S3ServiceError, FileExistsError):
    """The object exists, and ``overwrite=False`` was given. It stays what it was before."""

    errno = _errno.EEXIST


class S3ThrottledError(S3ServiceError):
    """S3 asked to slow down until all attempts were used up."""


class S3UploadAbortedError(S3Exception):
    """The upload was aborted, by the program or after an error. The object is what it was before."""
