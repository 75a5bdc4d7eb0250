"""The limit: the same requests by raw blocking sockets on threads, with nothing around them.

No retries, no pool, no checks beyond the status: what is left is the cost of the kernel, of the
interpreter's thread switches and, over TLS, of the decryption. Loading and saving are limited by PyTorch
itself: a file in memory, a file that discards.
"""

from __future__ import annotations

import io
import os
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from urllib.parse import urlsplit

from benchmarks import connector, training
from benchmarks.job import Job
from benchmarks.meter import Meter

_PART = 8 << 20
_HEAD = 2048


def objects(job: Job, meter: Meter) -> int:
    """Whole small objects, in no order. Returns their number."""
    server = _Server(job)
    requests = iter([server.request(job.small(number)) for number in range(job.objects)])

    def work(line: _Line) -> None:
        body = memoryview(bytearray(job.small_size))
        for request in requests:  # shared by the threads: a list iterator's step is atomic
            line.exchange(request, body)

    with meter:
        _in_threads(job.connections, server, work)
    return job.objects


def readinto(job: Job, meter: Meter) -> int:
    """One large object in ranges, straight into ready memory. Returns its bytes."""
    server = _Server(job)
    memory = ready_memory(job.size)
    bounds = [(start, min(start + _PART, job.size)) for start in range(0, job.size, _PART)]
    parts = iter([(server.request(job.big, start, end), memory[start:end]) for start, end in bounds])

    def work(line: _Line) -> None:
        for request, part in parts:
            line.exchange(request, part)

    with meter:
        _in_threads(job.connections, server, work)
    return job.size


def load(job: Job, meter: Meter) -> int:
    """`torch.load` of the same checkpoint from a local file in memory. Returns its bytes."""
    import torch

    with meter:
        torch.load(job.copy, map_location="cpu", weights_only=True)
    return job.size


def save(job: Job, meter: Meter) -> int:
    """`torch.save` of the same tensors to a file object that discards. Returns their bytes."""
    import torch

    from benchmarks.objects import tensors

    state = tensors(job.size)
    with meter:
        torch.save(state, _Null())
    return job.size


def staging(job: Job, meter: Meter) -> int:
    """The copy that every asynchronous save makes while the program waits. Returns its bytes."""
    from benchmarks import distributed

    return distributed.staging(job, meter)


WORK: dict[str, Callable[[Job, Meter], int]] = {
    "iterable": objects,
    "readinto": readinto,
    "load": load,
    "save": save,
    "dcp-async": staging,
    "shuffled": connector.iterable,  # our other datasets, which do not shuffle
    "shuffled-workers": partial(training.shuffled_workers, ours=False),
}


def ready_memory(size: int) -> memoryview:
    """Writable memory whose pages already exist, like those of a model in training."""
    memory = memoryview(bytearray(size))
    memory[::4096] = b"\1" * len(memory[::4096])
    return memory


class _Null(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        return memoryview(data).nbytes


class _Server:
    """Requests, written out in full before the clock starts, and connections to send them on."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._presign = _presigner(job) if job.signed else self._local
        url = urlsplit(self._presign(job.big))
        self._host = url.hostname or ""
        self._address = (self._host, url.port or (443 if url.scheme == "https" else 80))
        self._netloc = url.netloc
        self._tls = None
        if url.scheme == "https":
            self._tls = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))

    def _local(self, key: str) -> str:
        return f"{self._job.endpoint}/{self._job.bucket}/{key}"

    def request(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        url = urlsplit(self._presign(key))
        target = url.path + ("?" + url.query if url.query else "")
        span = "" if start is None or end is None else f"Range: bytes={start}-{end - 1}\r\n"
        return f"GET {target} HTTP/1.1\r\nHost: {self._netloc}\r\n{span}\r\n".encode()

    def connect(self) -> socket.socket:
        connection = socket.create_connection(self._address, timeout=60)
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._tls.wrap_socket(connection, server_hostname=self._host) if self._tls else connection


def _presigner(job: Job) -> Callable[[str], str]:
    import botocore.session
    from botocore.config import Config

    style = Config(s3={"addressing_style": "path" if job.path_style else "auto"}, signature_version="s3v4")
    client = botocore.session.get_session().create_client(
        "s3", region_name=job.region, endpoint_url=job.endpoint, config=style
    )
    return lambda key: client.generate_presigned_url("get_object", Params={"Bucket": job.bucket, "Key": key})


class _Line:
    """A connection for one thread, made again when the server has announced to close it."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._socket = server.connect()
        self._flags = 0 if isinstance(self._socket, ssl.SSLSocket) else socket.MSG_WAITALL

    def exchange(self, request: bytes, body: memoryview) -> None:
        """Send one request and receive its body into `body`, which has the same length."""
        self._socket.sendall(request)
        head = b""
        while (end := head.find(b"\r\n\r\n")) < 0:
            received = self._socket.recv(_HEAD)
            if not received:
                raise ConnectionError("the server closed the connection")
            head += received
        if head[9:12] not in (b"200", b"206"):
            raise ConnectionError(head.decode("latin-1"))
        done = len(head) - end - 4
        body[:done] = head[end + 4 :]
        while done < len(body):
            count = self._socket.recv_into(body[done:], 0, self._flags)
            if not count:
                raise ConnectionError(f"the body ended after {done} of {len(body)} bytes")
            done += count
        if b"connection: close" in head[:end].lower():
            self.close()
            self._socket = self._server.connect()

    def close(self) -> None:
        self._socket.close()


def _in_threads(count: int, server: _Server, work: Callable[[_Line], None]) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with closing(_Line(server)) as line:
                work(line)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
