"""A misbehaving proxy in front of a real server: its faults are in ``faults``.

    with MisbehavingProxy(s3_server.endpoint, Mix(seed=1)) as proxy:
        ...  # clients of proxy.endpoint
        proxy.report().lost_uploads

It runs in a separate process, on asyncio, so that it shares no threads, sockets, memory and interpreter lock with the
client. It ends with its standard input, so also if the test process is killed; for each line on standard input it
prints a report.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import json
import re
import socket
import ssl
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from typing_extensions import Self

from tests.servers.async_http import Streams, accepted, connected, read_body, read_head, read_response
from tests.servers.faults import HARMLESS, End, Fault, Mix, Pause, Step, error_response, plan, with_checksum
from tests.servers.http_messages import Head, ReceivedRequest
from tests.servers.tls import PrivateCA

_ROOT = Path(__file__).parents[2]


@dataclass
class Report:
    """What the proxy did.

    Attributes:
        answers: how many requests there were.
        faults: how many had which fault, by ``Fault.value``.
        lost_uploads: ids of multipart uploads that were created without the client learning their id.
    """

    answers: int
    faults: dict[str, int]
    lost_uploads: list[str]


class MisbehavingProxy:
    """See the module; a context manager.

    Args:
        upstream: the server, plain HTTP.
        mix: the faults.
        authority: speak TLS, with this CA's certificate.
    """

    endpoint: str

    def __init__(self, upstream: str, mix: Mix, authority: PrivateCA | None = None) -> None:
        self.mix = mix
        self._tls = [str(authority.certificate), str(authority.private_key)] if authority else None
        self._upstream = upstream

    def __enter__(self) -> Self:
        settings = json.dumps({"upstream": self._upstream, "mix": dataclasses.asdict(self.mix), "tls": self._tls})
        command = [sys.executable, "-m", "tests.servers.misbehaving", settings]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            self.__exit__()
            raise RuntimeError("the proxy did not start; its reason is on standard error")
        self.endpoint = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.communicate()  # closes its standard input, waits for its end

    def report(self) -> Report:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("report\n")
        self._process.stdin.flush()
        return Report(**json.loads(self._process.stdout.readline()))


class _Close(Exception):
    """This connection is over."""


class _Server:
    """Accepts connections and serves each with a task."""

    def __init__(self, upstream: str, mix: Mix, tls: ssl.SSLContext | None) -> None:
        url = urlsplit(upstream)
        self.upstream = (url.hostname or "", url.port or 80)
        self.mix = mix
        self.faults: collections.Counter[str] = collections.Counter()
        self.answers = 0
        self.lost_uploads: list[str] = []
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for number in itertools.count():
            sock, _ = await loop.sock_accept(listener)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = loop.create_task(self._serve(sock, number))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket, number: int) -> None:
        if self._tls and (delay := self.mix.handshake_delay(number)):
            self.faults[Fault.HANDSHAKE.value] += 1
            await asyncio.sleep(delay)
        # Clients that went away are no error here.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, _Close):
            async with accepted(sock, self._tls) as client, connected(*self.upstream) as upstream:
                await _Conversation(self, number, client, upstream).serve()


class _Conversation:
    """One connection of a client, and the proxy's to the server."""

    def __init__(self, server: _Server, number: int, client: Streams, upstream: Streams) -> None:
        self._server = server
        self._mix = server.mix
        self._number = number
        self._client = client
        self._upstream = upstream

    async def serve(self) -> None:
        for number in itertools.count():
            head = await read_head(self._client.reader)
            if head is None:
                return
            request = ReceivedRequest(head, b"")
            fault, dice = self._mix.fault_for(request, self._number, number)
            self._server.answers += 1
            if fault is not None:
                self._server.faults[fault.value] += 1
            if fault is Fault.DROP:
                await self._client.reader.readexactly(dice.randrange(int(head.headers.get("content-length", 0)) + 1))
                await self._do([dice.choice((End.CLOSE, End.RESET))])
            request.body = await read_body(self._client.reader, head)
            error = fault and error_response(fault)
            if error:
                await self._do([error])
                continue
            answer, body = await self._ask(request)
            self._note_upload(request, fault, answer, body)
            await self._do(plan(fault, self._mix, answer, body, dice))

    async def _ask(self, request: ReceivedRequest) -> tuple[Head, bytes]:
        self._upstream.writer.write(request.head.raw)
        self._upstream.writer.write(request.body)
        await self._upstream.writer.drain()
        answer = await read_response(self._upstream.reader, request)
        if answer is None:
            raise _Close  # as the server did
        head, body = answer
        if Fault.FLIP in self._mix.faults and request.method == "GET" and not request.query and head.status < 300:
            head.raw = with_checksum(head, body)
        return head, body

    def _note_upload(self, request: ReceivedRequest, fault: Fault | None, answer: Head, body: bytes) -> None:
        """Note an upload that the server has just created and that the client will not know about."""
        if request.method == "POST" and "uploads" in request.query and answer.status == 200:
            upload = re.search(rb"<UploadId>(.*?)</UploadId>", body)
            if upload and (fault not in HARMLESS or self._is_gone()):
                self._server.lost_uploads.append(upload[1].decode())

    def _is_gone(self) -> bool:
        reader = self._client.reader
        return reader.at_eof() or reader.exception() is not None or self._client.writer.is_closing()

    async def _do(self, steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            elif isinstance(step, End):
                self._end(step)
            else:
                self._client.writer.write(step)
                await self._client.writer.drain()

    def _end(self, how: End) -> None:
        if how is End.HALF and self._client.writer.can_write_eof():  # TLS has no half
            self._client.writer.write_eof()
            return
        if how is End.RESET:
            sock = self._client.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._client.writer.transport.abort()
        raise _Close


async def _serve(upstream: str, mix: Mix, tls: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        listener.setblocking(False)
        server = _Server(upstream, mix, tls)
        accepting = loop.create_task(server.accept(listener))
        print(listener.getsockname()[1], flush=True)
        while await loop.run_in_executor(None, sys.stdin.readline):
            report = Report(server.answers, dict(server.faults), server.lost_uploads)
            print(json.dumps(dataclasses.asdict(report)), flush=True)
        accepting.cancel()


def _main(settings: dict[str, Any]) -> None:
    mix = Mix(**{**settings["mix"], "faults": [Fault(each) for each in settings["mix"]["faults"]]})
    tls = None
    if settings["tls"]:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*settings["tls"])
    asyncio.run(_serve(settings["upstream"], mix, tls))


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
