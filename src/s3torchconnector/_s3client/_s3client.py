"""``S3Client``: the operations on objects, on top of transfers.

A client is configuration: it pickles, and opens its own connections in each process, at first use. A forked child drops
its copies of its parent's connections without telling the server, so nothing needs to be closed before a fork.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from s3torchconnector import _transfer, _wire
from s3torchconnector._config import S3ClientConfig, options_class
from s3torchconnector._errors import S3ConfigurationError, S3NotFoundError
from s3torchconnector._late_imports import no_fork
from s3torchconnector._s3client._opens_runtime import _OpensRuntime
from s3torchconnector._transfer import ObjectSource
from s3torchconnector._types import HeadObjectResult, ObjectInfo
from s3torchconnector._user_agent import UserAgent, check_printable
from s3torchconnector._wire import operations, read_document
from s3torchconnector.s3reader import S3Reader, S3ReaderConstructor, S3ReaderConstructorProtocol
from s3torchconnector.s3writer import S3Writer

if TYPE_CHECKING:
    from s3torchconnector._customer_key import S3CustomerKey
    from s3torchconnector._listing_results import ObjectInfos, UploadInfo
    from s3torchconnector._transfer import ListObjectStream
    from s3torchconnector._write_options import S3WriteOptions


class S3Client(_OpensRuntime):
    """Access to S3, or to a server that speaks its protocol. Thread-safe, picklable, safe under fork.

    Nothing is opened before the first request. A client may be used in a ``with`` block, which closes it at the end.
    Every operation raises an ``S3Exception`` if S3 refuses it or cannot be reached.

    Args:
        region: region of the buckets, for example ``"us-east-1"``.
        endpoint: URL of the S3 server. By default the one that the environment or the AWS configuration names, and if
            there is none, AWS's for the region.
        user_agent: text put before this package's own in the User-Agent header; or a ``UserAgent`` with comments.
        s3client_config: everything else, see ``S3ClientConfig``.

    Raises:
        S3ConfigurationError: (a ``ValueError``) the region or the user agent cannot be used, or the key of the customer
            would be sent to the endpoint in the clear.

    Example:
        >>> from s3torchconnector import S3Client
        >>> with S3Client("us-east-1") as client:
        ...     for infos in client.list_all("my-bucket", "images/"):
        ...         print([(info.key, info.size) for info in infos])
        [('images/0.png', 10), ('images/1.png', 10), ('images/2.png', 10)]
    """

    def __init__(
        self,
        region: str,
        *,
        endpoint: str | None = None,
        user_agent: UserAgent | str | None = None,
        s3client_config: S3ClientConfig | None = None,
    ) -> None:
        if not isinstance(region, str) or not region:
            raise S3ConfigurationError(f"a region such as 'us-east-1' is needed: region={region!r}")
        check_printable(user_agent if isinstance(user_agent, str) else "")
        self._region = region
        self._endpoint = endpoint
        self._user_agent = user_agent
        self._config = s3client_config or S3ClientConfig()
        if self._config.customer_key is not None and endpoint is not None:
            self._config.customer_key._refuse_unencrypted(endpoint)
        self._start_afresh()

    @property
    def region(self) -> str:
        """The region of the buckets."""
        return self._region

    @property
    def endpoint(self) -> str | None:
        """The URL of the S3 server, if one was given."""
        return self._endpoint

    @property
    def s3client_config(self) -> S3ClientConfig:
        """The configuration."""
        return self._config

    def get_object(
        self,
        bucket: str,
        key: str,
        *,
        object_info: ObjectInfo | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        version_id: str | None = None,
    ) -> S3Reader:
        """Open one object as a binary file to read. No request is made before something is read.

        Args:
            bucket, key: the object.
            object_info: what a listing told about the object. It saves requests.
            reader_constructor: how the object is read, see ``S3ReaderConstructor``.
            version_id: the version to read, in a bucket that keeps versions; by default the latest.

        Raises:
            ValueError: the bucket is empty.
        """
        early = None if version_id else self._early.take(bucket, key, reader_constructor)  # which is of the latest
        return early or self._open_reader(bucket, key, object_info, reader_constructor, version_id)

    def _open_reader(
        self,
        bucket: str,
        key: str,
        object_info: ObjectInfo | None,
        constructor: S3ReaderConstructorProtocol | None,
        version_id: str | None = None,
    ) -> S3Reader:
        source = ObjectSource(self._runtime, bucket, key, object_info, version_id)
        get_info: Callable[[], ObjectInfo | HeadObjectResult] = partial(self.head_object, bucket, key, version_id)
        if object_info is not None and object_info.etag:
            get_info = partial(copy, object_info)  # not a lambda: readers that keep it pickle
        construct = constructor or S3ReaderConstructor.default()
        return construct(bucket=bucket, key=key, get_object_info=get_info, get_stream=source)

    def put_object(
        self,
        bucket: str,
        key: str,
        storage_class: str | None = None,
        *,
        overwrite: bool = True,
        summed: bool = False,
        options: S3WriteOptions | None = None,
    ) -> S3Writer:
        """Open one object as a binary file to write. It is stored by ``close``, or at the end of a ``with`` block.

        Args:
            bucket: the object's bucket.
            key: the object's key.
            storage_class: S3's name of the storage class, if it is not that of the options.
            overwrite: whether an object that exists is replaced, see ``S3Checkpoint.writer``.
            summed: whether to compute ``writer.stream.checksum`` even if uploads carry none.
            options: encryption, tags and more of this object; what they leave out is the client's, see
                ``S3WriteOptions``.

        Raises:
            S3ObjectExistsError: (a ``FileExistsError``) the object exists, and ``overwrite`` is false.
        """
        if storage_class:
            options = replace(options or options_class()(), storage_class=storage_class)
        open_stream = partial(_transfer.PutObjectStream, self._runtime, bucket, key)
        return S3Writer(open_stream(overwrite=overwrite, summed=summed, options=options))

    def list_objects(
        self, bucket: str, prefix: str = "", delimiter: str = "", max_keys: int = 1000
    ) -> ListObjectStream:
        """List the objects whose keys begin with ``prefix``, page by page.

        Args:
            bucket: the bucket to list.
            prefix: what the keys begin with.
            delimiter: keys that contain it after the prefix are grouped into common prefixes.
            max_keys: at most this number of keys a page; S3 allows 1000.

        Returns:
            An iterator over pages (``ListObjectResult``), each requested when it is asked for.
        """
        return _transfer.ListObjectStream(self._runtime, bucket, prefix, delimiter, max_keys)

    def list_all(self, bucket: str, prefix: str = "") -> Iterator[ObjectInfos]:
        """List all objects whose keys begin with ``prefix``, in key order, requesting many pages in parallel.

        A directory bucket is listed one page after the other, in the order that it has. A long listing shows its
        progress on a terminal.

        Returns:
            An iterator over sequences of ``ObjectInfo``.
        """
        return _transfer.list_all(self._runtime, bucket, prefix)

    def head_object(self, bucket: str, key: str, version_id: str | None = None) -> HeadObjectResult:
        """Return what S3 knows about an object, or a version of it: size in bytes, ETag, time of the last change.

        Raises:
            S3NotFoundError: (a ``FileNotFoundError``) there is no such object.
        """
        with no_fork:
            from s3torchconnector._s3client._head_result import head_result

        head = operations.of_version(operations.head_object(bucket, key), version_id)
        return head_result(*_wire.describe(self._runtime().caller, head))

    def delete_object(self, bucket: str, key: str) -> None:
        """Delete an object. It is no error if there is none."""
        self._runtime().caller.call(operations.delete_object(bucket, key), read_document)

    def delete_objects(self, bucket: str, keys: Iterable[str]) -> None:
        """Delete objects, up to 1,000 by one request. It is no error if one is not there.

        Raises:
            S3Exception: an object could not be deleted, the first of those. All others were tried.
        """
        _transfer.check_deleted(bucket, _transfer.delete_objects(self._runtime(), bucket, keys))

    def delete_prefix(self, bucket: str, prefix: str) -> None:
        """Delete all objects whose keys begin with ``prefix``, which must not be empty.

        Raises:
            ValueError: the prefix is empty, or only slashes.
            S3Exception: an object could not be deleted. Others may have been.
        """
        if not prefix.strip("/"):
            raise ValueError(f"the prefix {prefix!r} would delete all objects of s3://{bucket}: give a longer one")
        pages = self.list_objects(bucket, prefix)
        self.delete_objects(bucket, (info.key for page in pages for info in page.object_info))

    def list_multipart_uploads(self, bucket: str, prefix: str = "") -> Iterator[UploadInfo]:
        """List the unfinished multipart uploads to keys that begin with ``prefix``, in key order."""
        return _transfer.list_uploads(self._runtime, bucket, prefix)

    def abort_multipart_upload(self, bucket: str, key: str, upload_id: str) -> None:
        """Abort a multipart upload, which deletes its parts. It is no error if it has ended."""
        with contextlib.suppress(S3NotFoundError):
            self._runtime().caller.call(operations.abort_multipart_upload(bucket, key, upload_id), read_document)

    def copy_object(
        self,
        src_bucket: str,
        src_key: str,
        dst_bucket: str,
        dst_key: str,
        *,
        overwrite: bool = True,
        options: S3WriteOptions | None = None,
        source_key: S3CustomerKey | Literal["same"] | None = "same",
        version_id: str | None = None,
    ) -> None:
        """Copy an object inside S3. One that is too large for one request (5 GiB) is copied in parts, in parallel.

        The copy has the content type, the metadata and the tags of the source. Encryption, ACL and storage class are
        those of the options: S3 copies none of them.

        Args:
            src_bucket, src_key, dst_bucket, dst_key: what is copied, and where to.
            overwrite: whether an object that exists there is replaced, see ``S3Checkpoint.writer``.
            options: of the copy; what they leave out is the client's, see ``S3WriteOptions``. Content type and metadata
                are only replaced by those of this argument, and tags by those of either.
            source_key: the customer's key that the source is encrypted with; None if it has none. By default, the
                ``customer_key`` of the client, with which the copy is encrypted.
            version_id: the version of the source, by default the latest.

        Raises:
            S3NotFoundError: (a ``FileNotFoundError``) there is no such object, or no such destination bucket.
            S3ObjectExistsError: (a ``FileExistsError``) an object is there, and ``overwrite`` is false.
            S3ObjectChangedError: the source was overwritten while it was copied in parts. Nothing is stored.
        """
        source = _transfer.Place(src_bucket, src_key, version_id)
        copy_of = partial(_transfer.ObjectCopy, self._runtime, source, _transfer.Place(dst_bucket, dst_key))
        copy_of(options=options, overwrite=overwrite, source_key=source_key).carry_out()

    def debug_state(self) -> str:
        """Describe what this process is doing, for a person who looks at a stalled job.

        The text names the requests under way, with their objects, their age and the bytes received so far, and what
        each thread waits for: memory, a connection, a permit, credentials, a response. Budget, threads and connections
        are those of this client and of the clients that share them; threads are all of the process that use this
        package, except the one that asks. Bytes are counted whenever a buffer is full, at most every 8 MiB.

        This waits for nothing, and can be called at any time, from any thread. The text may change.
        """
        return _transfer.debug_state(repr(self), self._opened)

    def close(self) -> None:
        """Wait for transfers under way, then end this process's threads and connections.

        Those that are shared with other clients of equal settings stay open. The client can be used again.
        """
        with self._lock:
            runtime, self._opened = self._opened, None
        if runtime is not None:
            runtime.close()

    def __enter__(self) -> S3Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"S3Client(region={self._region!r}, endpoint={self._endpoint!r})"
