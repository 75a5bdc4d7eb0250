"""Virtual objects on a scripted server whose responses a test can hold back, and transforms that can be pickled."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable

from s3torchconnector import S3ClientConfig, S3IterableDataset, S3MapDataset, S3Reader
from s3torchconnector._transfer import Runtime
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.scripted import Reply, ScriptedServer, Send

KIB = 1024
MIB = 1024 * KIB
TIMEOUT = 20.0  # seconds to wait for a state before the test fails


def read(reader: S3Reader) -> bytes:
    return reader.read()


def key_and_bytes(reader: S3Reader) -> tuple[str, bytes]:
    return reader.key, reader.read()


def config(**changes: object) -> S3ClientConfig:
    """No credentials, no second attempt, and no timeout that could end the wait for a held response."""
    return S3ClientConfig(**{"unsigned": True, "max_attempts": 1, "read_timeout": 1000.0, **changes})  # type: ignore[arg-type]


def runtime_of(dataset: S3IterableDataset | S3MapDataset) -> Runtime:
    return dataset._source.client._runtime()


def wait_until_budget_is_free(dataset: S3IterableDataset | S3MapDataset) -> None:
    budget = runtime_of(dataset).budget

    def take_everything() -> None:
        budget.wait_take(budget.limit, need_not_wait=lambda: False)
        budget.give_back(budget.limit)

    waiter = threading.Thread(target=take_everything, daemon=True)
    waiter.start()
    waiter.join(TIMEOUT)
    assert not waiter.is_alive(), f"{budget.taken} bytes are still taken"


class HeldObjects(ScriptedServer):
    """Objects ``0``, ``1``, ... of ``size`` bytes in the bucket ``held``; responses to ``hold`` wait for ``release``.

    Attributes:
        seen: the numbers of the objects asked for, in the order of arrival.
        most: the largest number of requests that waited for a response at the same time.
    """

    def __init__(self, count: int, size: int = KIB, *, hold: Iterable[int] = (), missing: Iterable[int] = ()) -> None:
        super().__init__(handler=self._respond)
        self.uris = [f"s3://held/{i}" for i in range(count)]
        self.size = size
        self.seen: list[int] = []
        self.most = 0
        self._owed = 0
        self._missing = set(missing)
        self._released = {i: threading.Event() for i in hold}
        self._arrived = threading.Condition()

    def dataset(self, transform: Callable[[S3Reader], object] = read, **changes: object) -> S3IterableDataset:
        options = {"look_ahead": changes.pop("look_ahead", None)}
        return S3IterableDataset.from_objects(
            self.uris, region="us-east-1", endpoint=self.endpoint, transform=transform,
            s3client_config=config(**changes), **options,  # type: ignore[arg-type]
        )  # fmt: skip

    def map_dataset(self, transform: Callable[[S3Reader], object] = read, **changes: object) -> S3MapDataset:
        return S3MapDataset.from_objects(
            self.uris, region="us-east-1", endpoint=self.endpoint, transform=transform,
            s3client_config=config(**changes),
        )  # fmt: skip

    def content(self, number: int) -> bytes:
        return number.to_bytes(4, "big") * (self.size // 4)

    def release(self, *numbers: int) -> None:
        """Respond to these requests, now or when they arrive; to all of them if none is named."""
        for number in numbers or self._released:
            self._released[number].set()

    def wait_for(self, count: int) -> None:
        """Wait until so many requests have arrived."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.seen) >= count, TIMEOUT), (
                f"{count} requests were expected, {len(self.seen)} came"
            )

    def _respond(self, request: ReceivedRequest) -> Reply:
        if request.method == "HEAD":  # for a checksum: there is none
            return response(200, headers={"content-length": str(self.size), "etag": '"e"'})
        number = int(request.path.rpartition("/")[2])
        with self._arrived:
            self.seen.append(number)
            self._owed += 1
            self.most = max(self.most, self._owed)
            self._arrived.notify_all()
        if number in self._released:
            self.stall(self._released[number])
        with self._arrived:
            self._owed -= 1
        if number in self._missing:
            return s3_error(404, "NoSuchKey")
        return self._range(number, request.range)

    def _range(self, number: int, header: str | None) -> Reply:
        first, last = (int(n) for n in re.fullmatch(r"bytes=(\d+)-(\d+)", header or f"bytes=0-{self.size}").groups())  # type: ignore[union-attr]
        body = memoryview(self.content(number))[first : last + 1]
        content_range = f"bytes {first}-{first + len(body) - 1}/{self.size}"
        head = response(206, headers={"content-length": str(len(body)), "content-range": content_range, "etag": '"e"'})
        return [Send(head, body)]


__all__ = ["KIB", "MIB", "TIMEOUT", "HeldObjects", "config", "key_and_bytes", "read", "runtime_of",
           "wait_until_budget_is_free"]  # fmt: skip
