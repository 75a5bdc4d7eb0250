"""``S3Client``: the operations on objects, on top of transfers.

A client is configuration: it pickles, and opens its connections at first use, anew in each process. A forked child
lets go of its parent's without a word to the server; nothing has to be joined or closed before a fork.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from s3torchconnector import _transfer
from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3ConfigurationError, S3NotFoundError
from s3torchconnector._s3client._head_result import head_result
from s3torchconnector._threads import start_thread
from s3torchconnector._transfer import ObjectSource, Runtime
from s3torchconnector._types import HeadObjectResult, ObjectInfo, ObjectInfos, UploadInfo
from s3torchconnector._version import __version__
from s3torchconnector._wire import operations, read_document, refuse_late_error
from s3torchconnector.s3reader import S3Reader, S3ReaderConstructor, S3ReaderConstructorProtocol

if TYPE_CHECKING:
    from s3torchconnector._transfer import ListObjectStream, PutObjectStream

_clients: weakref.WeakSet[S3Client] = weakref.WeakSet()


class S3Client:
    """Access to S3, or to a server that speaks its protocol. Thread-safe, picklable, safe under fork.

    Args:
        region: the region of the buckets, for example ``"us-east-1"``.
        endpoint: URL of the server, where it is not AWS's for that region.
        user_agent: words put before this package's own in the User-Agent header.
        s3client_config: everything else; see ``S3ClientConfig``.

    Raises:
        S3ConfigurationError: the region or the user agent cannot be used.
    """

    def __init__(
        self,
        region: str,
        *,
        endpoint: str | None = None,
        user_agent: str | None = None,
        s3client_config: S3ClientConfig | None = None,
    ) -> None:
        if not isinstance(region, str) or not region:
            raise S3ConfigurationError(f"a region such as 'us-east-1' must be given: region={region!r}")
        if user_agent is not None and not (user_agent.isascii() and user_agent.isprintable()):
            raise S3ConfigurationError(f"the user agent must be printable ASCII: user_agent={user_agent!r}")
        self._region = region
        self._endpoint = endpoint
        self._user_agent = user_agent
        self._config = s3client_config or S3ClientConfig()
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._opened: Runtime | None = None
        _clients.add(self)

    @property
    def region(self) -> str:
        """The region requests are made for."""
        return self._region

    @property
    def endpoint(self) -> str | None:
        """The endpoint given, if any."""
        return self._endpoint

    @property
    def s3client_config(self) -> S3ClientConfig:
        """The configuration."""
        return self._config

    @property
    def user_agent(self) -> str:
        """The User-Agent header of all requests."""
        own = f"s3torchconnector/{__version__} (python)"
        return f"{self._user_agent} {own}" if self._user_agent else own

    def get_object(
        self,
        bucket: str,
        key: str,
        *,
        object_info: ObjectInfo | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
    ) -> S3Reader:
        """A reader of one object. No request is made before something is read.

        Args:
            bucket: the object's bucket.
            key: the object's key.
            object_info: what a listing told of it: saves requests.
            reader_constructor: how to read, see ``S3ReaderConstructor``.
        """
        source = ObjectSource(self._runtime, bucket, key, object_info)
        get_object_info: Callable[[], ObjectInfo | HeadObjectResult] = partial(self.head_object, bucket, key)
        if object_info is not None and object_info.etag:  # a dataset's table keeps no more of a listing than the size
            get_object_info = partial(copy, object_info)  # not a lambda: readers that keep it pickle
        construct = reader_constructor or S3ReaderConstructor.default()
        return construct(bucket=bucket, key=key, get_object_info=get_object_info, get_stream=source)

    def put_object(
        self,
        bucket: str,
        key: str,
        storage_class: str | None = None,
        *,
        overwrite: bool = True,
        summed: bool = False,
    ) -> PutObjectStream:
        """A stream that stores one object when it is closed; see ``S3Writer`` for the file-like form.

        Args:
            bucket: where to store it.
            key: the object's key.
            storage_class: S3's name of it, if it is not the bucket's usual one.
            overwrite: if not, the object is stored only where there is none; see ``S3Checkpoint.writer``.
            summed: whether the stream's ``checksum`` is wanted also where uploads carry none.
        """
        return _transfer.PutObjectStream(self._runtime, bucket, key, storage_class, overwrite=overwrite, summed=summed)

    def list_objects(
        self, bucket: str, prefix: str = "", delimiter: str = "", max_keys: int = 1000
    ) -> ListObjectStream:
        """List the objects whose keys begin with ``prefix``, in pages of at most ``max_keys`` keys.

        With a ``delimiter``, keys that have it behind the prefix are rolled up into common prefixes.
        """
        return _transfer.ListObjectStream(self._runtime, bucket, prefix, delimiter, max_keys)

    def list_all(self, bucket: str, prefix: str = "") -> Iterator[ObjectInfos]:
        """List all objects whose keys begin with ``prefix``, many pages at a time, in key order.

        Directory buckets are listed one page at a time, in the order that they have.
        Shows its progress on a terminal when it takes long. ``list_objects`` goes page by page, and can be resumed.

        Raises:
            S3Exception: an error occurred accessing S3.
        """
        return _transfer.list_all(self._runtime, bucket, prefix)

    def head_object(self, bucket: str, key: str) -> HeadObjectResult:
        """What S3 knows of an object.

        Raises:
            S3NotFoundError: there is no such object.
        """
        return self._runtime().caller.call(
            operations.head_object(bucket, key), lambda response: head_result(response.headers)
        )

    def delete_object(self, bucket: str, key: str) -> None:
        """Delete an object; one that does not exist is deleted already."""
        self._runtime().caller.call(operations.delete_object(bucket, key), read_document)

    def delete_objects(self, bucket: str, keys: Iterable[str]) -> None:
        """Delete objects, many at a time.

        Raises:
            S3Exception: one could not be deleted; others may be.
        """
        lane = self._runtime().lane()
        for deleted in [lane.submit(partial(self.delete_object, bucket, key)) for key in keys]:
            deleted.result()

    def delete_prefix(self, bucket: str, prefix: str) -> None:
        """Delete all objects whose keys begin with ``prefix``, which must not be empty.

        Raises:
            ValueError: the prefix is empty, so that the bucket would be.
            S3Exception: one could not be deleted; others may be.
        """
        if not prefix.strip("/"):
            raise ValueError(f"the prefix {prefix!r} would delete all of s3://{bucket}: name one that is not empty")
        for page in self.list_objects(bucket, prefix):
            self.delete_objects(bucket, [info.key for info in page.object_info])

    def list_multipart_uploads(self, bucket: str, prefix: str = "") -> Iterator[UploadInfo]:
        """The multipart uploads to keys with this prefix that were begun and not ended, in key order.

        Raises:
            S3Exception: an error occurred accessing S3.
        """
        return _transfer.list_uploads(self._runtime, bucket, prefix)

    def abort_multipart_upload(self, bucket: str, key: str, upload_id: str) -> None:
        """End a multipart upload and delete its parts; one that has ended is none."""
        with contextlib.suppress(S3NotFoundError):
            self._runtime().caller.call(operations.abort_multipart_upload(bucket, key, upload_id), read_document)

    def copy_object(self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str) -> None:
        """Copy an object of up to 5 GiB inside S3.

        Raises:
            S3NotFoundError: there is no such object, or no such destination bucket.
        """
        request = operations.copy_object(src_bucket, src_key, dst_bucket, dst_key)
        self._runtime().caller.call(request, partial(refuse_late_error, request))

    def _runtime(self) -> Runtime:
        """What this process has open: made at the first call, dropped by ``close``."""
        runtime = self._opened
        if runtime is None:
            with self._lock:
                runtime = self._opened
                if runtime is None:
                    runtime = Runtime(self._region, self._endpoint, self._config, self.user_agent)
                    weakref.finalize(self, _close_in_same_process, runtime, os.getpid()).atexit = False
                    self._opened = runtime
        return runtime

    def debug_state(self) -> str:
        """Describe what this process is doing, for a person who looks at a stalled job.

        It names the requests under way, with their objects, their age and the bytes received so far, and what each
        thread waits for: memory, a connection, a permit, credentials, a response. The client's budget, threads and
        connections are this client's and of those that it shares them with; threads are all of the process that use
        this package, but for the one that asks. Bytes are counted whenever a buffer is full, at most every 8 MiB.

        It waits for nothing, and can be called at any time, from any thread. The text is for people and may change.

        Example:
            >>> client = S3Client("us-east-1")
            >>> print(client.debug_state())  # doctest: +SKIP
        """
        return _transfer.debug_state(repr(self), self._opened)

    def close(self) -> None:
        """End what this process has open for it: threads and connections, unless other clients of equal settings share
        them. What is under way ends first. The client can be used again."""
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

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_opened")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_afresh()

    def __repr__(self) -> str:
        return f"S3Client(region={self._region!r}, endpoint={self._endpoint!r})"

    def _close_idle(self) -> None:
        """Close the connections of this process that serve no request, and keep none from now on."""
        runtime = self._opened
        if runtime is not None:
            runtime.close_idle()

    def _leave_to_parent(self) -> None:
        """In a forked child: forget what the parent has open."""
        runtime = self._opened
        self._start_afresh()
        if runtime is not None:
            runtime.forget()


def _close_in_same_process(runtime: Runtime, pid: int) -> None:
    """By other threads: a client's end may come anywhere, also while a lock is held that its threads wait for."""
    if os.getpid() == pid:
        # The collector has another one wait for the end of what is under way, since more may be left to it.
        _transfer.leave_to_collector(partial(_close_on_a_thread, runtime))


def _close_on_a_thread(runtime: Runtime) -> None:
    # There is no thread to be had, or the interpreter ends: CPython 3.12 starts none then. What is idle ends by itself.
    with contextlib.suppress(RuntimeError):
        start_thread("close", runtime.close)


def _close_idle_at_exit() -> None:
    """Finalisers no longer run when the interpreter exits. Transfers may go on; their connections close behind them."""
    for client in list(_clients):
        client._close_idle()


def _leave_all_to_parent() -> None:
    for client in list(_clients):
        client._leave_to_parent()


atexit.register(_close_idle_at_exit)
os.register_at_fork(after_in_child=_leave_all_to_parent)
