"""The tail of small reads: ``python -m benchmarks.tail``.

A separate server (asyncio, one process) delays one response in a hundred by 2 seconds. Eight threads read objects of 10
KB from it through one client, with hedged requests and without; the timed operation is one ``read()``.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import threading
import time
from multiprocessing.connection import Connection

from s3torchconnector import S3ClientConfig
from s3torchconnector._s3client import S3Client

_SIZE = 10_000
_LATE_SECONDS = 2.0
_LATE_ONE_IN = 100
_THREADS = 8
_READS = 500  # by each thread


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, numbers: itertools.count[int]) -> None:
    head = (
        f"HTTP/1.1 206 OK\r\nContent-Length: {_SIZE}\r\nContent-Range: bytes 0-{_SIZE - 1}/{_SIZE}\r\nETag: e\r\n\r\n"
    )
    response = head.encode() + bytes(_SIZE)
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            if next(numbers) % _LATE_ONE_IN == 0:
                await asyncio.sleep(_LATE_SECONDS)
            writer.write(response)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()  # the client has gone


def _serve(ready: Connection) -> None:
    async def run() -> None:
        numbers = itertools.count(1)
        server = await asyncio.start_server(lambda *pair: _answer(*pair, numbers), "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        while not ready.poll():  # until the other side asks how many came
            await asyncio.sleep(0.05)
        ready.send(next(numbers) - 1)
        await asyncio.sleep(2 * _LATE_SECONDS)  # for late responses whose readers have gone

    asyncio.run(run())


def _measure(endpoint: str, hedge: bool) -> list[float]:
    """Seconds that each read took, in order of length."""
    took: list[float] = []
    config = S3ClientConfig(unsigned=True, hedge=hedge)
    with S3Client("us-east-1", endpoint=endpoint, s3client_config=config) as client:

        def read() -> None:
            for number in range(_READS):
                began = time.perf_counter()
                data = client.get_object("bucket", str(number)).read()
                took.append(time.perf_counter() - began)
                assert len(data) == _SIZE

        threads = [threading.Thread(target=read) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sorted(took)


def main() -> None:
    print("| hedged requests | p50 | p99 | p99.9 | requests for each read |")
    print("|---|---|---|---|---|")
    for hedge in (False, True):
        here, there = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(target=_serve, args=(there,))
        server.start()
        took = _measure(f"http://127.0.0.1:{here.recv()}", hedge)
        here.send(None)
        extra = here.recv() / len(took)
        server.join()
        cells = [f"{took[int(len(took) * rank)] * 1e3:.1f} ms" for rank in (0.5, 0.99, 0.999)]
        print(f"| {'on' if hedge else 'off'} | {' | '.join(cells)} | {extra:.3f} |")


if __name__ == "__main__":
    main()
