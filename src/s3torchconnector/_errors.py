"""Every error this package raises, as one tree, which ``s3torchconnector.errors`` draws and exports.

Each carries what a program needs to decide, and a text that says what failed, on which object, why and what to do next.
They pickle, because they cross DataLoader workers. No code of ours compares their text; the first words of some are
kept as programs written for the native connector match them.
"""

from __future__ import annotations

import errno as _errno
from typing import Any


class S3Exception(Exception):
    """An error occurred accessing S3: the root of everything this package raises about S3.

    Attributes:
        operation: the S3 action, for example ``"GetObject"``; ``None`` when no request was made.
        bucket, key: the object concerned, where there is one.
        status: the HTTP status, where S3 answered.
        code: S3's error code, for example ``"NoSuchKey"``.
        request_id: the id to quote to AWS Support.
        attempts: how many times the request was tried.
        resent: whether one of them was sent twice, since a kept-alive connection turned out closed.
        retry_after: seconds after which S3 asked to be asked again, where it did.
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

    def __init__(self, *args: Any, **facts: Any) -> None:
        super().__init__(*args)
        # Programs' own raise it with any arguments, or none, as they may an Exception.
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
    """The endpoint gave no (whole) answer: refused, reset, unresolvable, or cut off."""


class S3TimeoutError(S3ConnectionError, TimeoutError):
    """The endpoint gave no answer within the configured time."""

    errno = _errno.ETIMEDOUT


class S3ProtocolError(S3Exception):
    """What came back is not S3's, or not what was asked for (wrong range, broken framing, malformed XML)."""


class S3ChecksumError(S3ProtocolError):
    """Bytes that came, also when asked for again, do not have the checksum that S3 keeps of the object.

    Also: there is no checksum to verify them by, although the configuration says ``checksum="required"``.

    Attributes:
        start, stop: the range of the object (bytes, half-open) in which the wrong bytes are.
    """

    start: int | None = None
    stop: int | None = None


class S3FormatError(S3Exception, ValueError):
    """An object came as it is stored, but its content is not what its format (safetensors, a manifest) demands."""


class S3ServiceError(S3Exception):
    """S3 answered with an error."""


class S3NotFoundError(S3ServiceError, FileNotFoundError):
    """The bucket, key or upload does not exist."""

    errno = _errno.ENOENT


class S3AccessDeniedError(S3ServiceError, PermissionError):
    """These credentials may not do this, or S3 did not accept them."""

    errno = _errno.EACCES


class S3WrongRegionError(S3ServiceError):
    """The bucket lives in another region than the one the client was made for.

    Attributes:
        region: the bucket's region, where S3 told it.
    """

    region: str | None = None


class S3ObjectChangedError(S3ServiceError):
    """The object was overwritten while it was being read; its versions are never mixed. Open it again.

    Also: of two saves of one checkpoint at the same time, this one is not committed.
    """


class S3ObjectExistsError(S3ServiceError, FileExistsError):
    """There is an object already, and ``overwrite=False`` said to leave it alone; it is what it was before."""

    errno = _errno.EEXIST


class S3ThrottledError(S3ServiceError):
    """S3 kept asking to slow down until all attempts were used up."""


class S3UploadAbortedError(S3Exception):
    """The upload was given up (by the program, or after an error): the object is what it was before."""
