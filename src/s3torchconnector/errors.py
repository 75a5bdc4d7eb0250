"""Every error that this package raises about S3, as one tree.

::

    S3Exception
    ├── S3ConfigurationError (ValueError)          a setting that cannot work; the text names it
    ├── S3CredentialsError                         no usable credentials; the text says where they were looked for
    ├── S3ConnectionError (ConnectionError)        no complete response: refused, reset, unresolvable, cut off
    │   └── S3TimeoutError (TimeoutError)          no complete response in time
    ├── S3ProtocolError                            a response that is not S3's, or not what was asked for
    │   └── S3ChecksumError                        bytes that differ from those that were stored
    ├── S3FormatError (ValueError)                 an object whose content is not in the format it should have
    ├── S3ServiceError                             S3 responded with an error
    │   ├── S3NotFoundError (FileNotFoundError)    no such bucket, key or upload
    │   ├── S3AccessDeniedError (PermissionError)  these credentials are not allowed to do this
    │   ├── S3ObjectArchivedError                  the object must be restored from an archive first
    │   ├── S3WrongRegionError                     the bucket is in another region; the text says which
    │   ├── S3ObjectChangedError                   the object was replaced during a read, or by another save
    │   ├── S3ObjectExistsError (FileExistsError)  a write with overwrite=False found an object
    │   └── S3ThrottledError                       S3 asked to slow down until the attempts were used up
    └── S3UploadAbortedError                       the upload was aborted; nothing was stored

The names in parentheses are the built-in exceptions that a class derives from as well. Each error carries
``operation``, ``bucket``, ``key``, ``status``, ``code``, ``request_id`` and ``attempts`` for programs to decide by
(see ``S3Exception``), and can be pickled.

Five of them are an ``OSError``, so ``except OSError:`` around the decoding of a sample catches them. Put
``except S3Exception: raise`` before it; otherwise a missing object is mistaken for a corrupt one.

Example:
    >>> from s3torchconnector import S3Checkpoint
    >>> from s3torchconnector.errors import S3NotFoundError
    >>> try:
    ...     S3Checkpoint("us-east-1").reader("s3://my-bucket/last.pt").read()
    ... except S3NotFoundError as error:
    ...     print(error.operation, error.code)
    GetObject NoSuchKey
"""

from s3torchconnector._errors import (
    S3AccessDeniedError,
    S3ChecksumError,
    S3ConfigurationError,
    S3ConnectionError,
    S3CredentialsError,
    S3Exception,
    S3FormatError,
    S3NotFoundError,
    S3ObjectArchivedError,
    S3ObjectChangedError,
    S3ObjectExistsError,
    S3ProtocolError,
    S3ServiceError,
    S3ThrottledError,
    S3TimeoutError,
    S3UploadAbortedError,
    S3WrongRegionError,
)

__all__ = [
    "S3AccessDeniedError",
    "S3ChecksumError",
    "S3ConfigurationError",
    "S3ConnectionError",
    "S3CredentialsError",
    "S3Exception",
    "S3FormatError",
    "S3NotFoundError",
    "S3ObjectArchivedError",
    "S3ObjectChangedError",
    "S3ObjectExistsError",
    "S3ProtocolError",
    "S3ServiceError",
    "S3ThrottledError",
    "S3TimeoutError",
    "S3UploadAbortedError",
    "S3WrongRegionError",
]
