"""Downloads from a server that keeps checksums and changes bytes: whole reads are right, or an error says where."""

from __future__ import annotations

import io
import math
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from s3torchconnector import S3Reader, S3ReaderConstructor
from s3torchconnector._errors import S3ChecksumError
from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.reading._integrity import ObjectIntegrity, Sum
from s3torchconnector._wire._checksum_support import ChecksumSupport
from s3torchconnector._wire._checksums import Algorithm
from tests.integrity.support import CRC32, CRC32C, CRC64NVME, ChecksummedObject
from tests.reading.support import KIB, MIB, PART, client_of, content, open_object
from tests.servers.http_messages import ReceivedRequest, response
from tests.servers.scripted import ScriptedServer

SMALL = content(0, 300 * KIB)
LARGE = content(0, 3 * PART + 1234)  # four ranges
MUCH = bytes(MIB + 1)  # too much to be kept until S3 has named the algorithm

pytestmark = pytest.mark.usefixtures("s3_server")  # for its keys


def readinto_all(reader: Any) -> bytes:
    size = reader.seek(0, io.SEEK_END)
    reader.seek(0)
    memory = bytearray(size)
    assert reader.readinto(memory) == size
    return bytes(memory)


def in_pieces(reader: Any) -> bytes:
    return b"".join(iter(lambda: reader.read(700 * KIB), b""))


WHOLE = {"read": lambda reader: reader.read(), "readinto": readinto_all}
ALL = {**WHOLE, "in pieces": in_pieces}


def read(obj: ChecksummedObject, how: Callable[[Any], bytes], **settings: Any) -> bytes:
    with ScriptedServer(handler=obj) as server, client_of(server.endpoint, **settings) as client:
        return how(open_object(client, "b"))


@pytest.mark.parametrize("how", ALL)
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("algorithm", [CRC64NVME, CRC32C, CRC32, None])
def test_right_bytes_are_found_right(algorithm: Algorithm | None, data: bytes, how: str) -> None:
    obj = ChecksummedObject(data, algorithm)
    assert read(obj, ALL[how]) == data
    assert obj.count("HEAD") <= 1
    assert all(request.headers["x-amz-checksum-mode"] == "ENABLED" for request in obj.requests)


@pytest.mark.parametrize("how", WHOLE)
@pytest.mark.parametrize("algorithm", [CRC64NVME, CRC32])
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("place", [0, PART])
def test_a_whole_read_recovers(place: int, data: bytes, algorithm: Algorithm, how: str) -> None:
    obj = ChecksummedObject(data, algorithm, lambda start, times: start == place and times == 1)
    assert read(obj, WHOLE[how]) == data
    assert obj.spoilt == ([place] if place < len(data) else [])


@pytest.mark.parametrize("how", WHOLE)
def test_what_stays_wrong_is_an_error_that_names_the_range(how: str) -> None:
    wrong = iter(range(1, 256))

    class Rotten(ChecksummedObject):
        def _body(self, start: int, stop: int) -> bytes:
            body = super()._body(start, stop)
            if start != PART:
                return body
            self.spoilt.append(start)
            return bytes([body[0] ^ next(wrong)]) + body[1:]

    with pytest.raises(S3ChecksumError, match=f"s3://b/key: bytes {PART} to {2 * PART} ") as caught:
        read(Rotten(LARGE), WHOLE[how])
    assert (caught.value.bucket, caught.value.key) == ("b", "key")
    assert (caught.value.start, caught.value.stop) == (PART, 2 * PART)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.start) == (str(caught.value), PART)


@pytest.mark.parametrize("how", ALL)
def test_a_small_object_that_stays_wrong(how: str) -> None:
    obj = ChecksummedObject(SMALL, spoil=lambda start, times: True)
    with pytest.raises(S3ChecksumError, match=f"bytes 0 to {len(SMALL)} ") as caught:
        read(obj, ALL[how])
    assert caught.value.stop == len(SMALL)


def prefetched(reader: Any) -> bytes:
    reader.prefetch()
    return bytes(reader.read())


def streamed(reader: Any) -> bytes:
    return b"".join(iter(lambda: reader.read(1000), b""))


@pytest.mark.parametrize("how", [prefetched, streamed])
@pytest.mark.parametrize("data", [SMALL[: 200 * KIB], SMALL[:2000]], ids=["200 KiB", "with its head"])
def test_a_wrong_object_in_one_response_is_fetched_again(data: bytes, how: Callable[[Any], bytes]) -> None:
    obj = ChecksummedObject(data, spoil=lambda start, times: times == 1)
    assert read(obj, how) == data
    assert obj.spoilt
    assert obj.count("HEAD") == 0


def test_a_checksum_that_came_late_is_compared() -> None:
    """Of a tail that is longer than the object, some servers refuse the range, tell no size, and HEAD no checksum."""

    class Refusing(ChecksummedObject):
        def __call__(self, request: ReceivedRequest) -> Any:
            if (request.range or "").startswith("bytes=-"):
                return response(416)
            answer = super().__call__(request)
            return response(200, headers={"Content-Length": "2000"}) if request.method == "HEAD" else answer

    obj = Refusing(SMALL[:2000], CRC32, lambda start, times: times == 1)

    def tail_and_beginning(reader: Any) -> bytes:
        reader.seek(-100, io.SEEK_END)
        return bytes(reader.read(100))

    assert read(obj, tail_and_beginning) == SMALL[1900:2000]
    assert obj.spoilt == [0]


def integrity_of(mode: str = "when_supported", known: Algorithm | None = None) -> ObjectIntegrity:
    support = ChecksumSupport(mode)
    if known is not None:
        support.note("b", {known: 1234})
    return ObjectIntegrity(support, "b", "key")


def headers_of(algorithm: Algorithm, data: bytes) -> dict[str, str]:
    return {algorithm.header: algorithm.encode(algorithm.of([data]))}


def counting(summed: list[int]) -> Algorithm:
    """A kind of checksum that notes how much is summed with it."""
    return Algorithm(CRC32.name, CRC32.bits, CRC32.polynomial, lambda data, _: summed.append(len(data)) or 0)


def test_an_algorithm_that_is_new_to_a_bucket_is_compared() -> None:
    integrity = integrity_of(known=CRC64NVME)
    integrity.learn(headers_of(CRC32, b"as it is stored"), 15)
    received = Sum(integrity)
    received.add(b"as it is spoilt")
    with pytest.raises(S3ChecksumError):
        received.check(Range(0, 15))


def test_until_the_algorithm_is_known_each_one_is_summed() -> None:
    integrity = integrity_of()
    received = Sum(integrity)
    received.add(MUCH)
    integrity.learn(headers_of(CRC32C, b""), 15)
    received.add(b"after")
    assert [received.sums().of(each) for each in (CRC64NVME, CRC32C, CRC32)] == [
        None,
        CRC32C.of([MUCH, b"after"]),
        None,
    ]


def test_sums_by_another_algorithm_go_on() -> None:
    integrity = integrity_of(known=CRC64NVME)
    received = Sum(integrity)
    received.add(MUCH)
    integrity.learn(headers_of(CRC32, b""), 15)
    received.add(b"after")
    assert received.sums().of(CRC64NVME) == CRC64NVME.of([MUCH, b"after"])


def test_nothing_more_is_summed_once_there_is_no_checksum() -> None:
    summed: list[int] = []
    integrity = integrity_of(known=counting(summed))
    received = Sum(integrity)
    received.add(MUCH)
    integrity.learn({}, 15)
    received.add(b"after")
    assert not received.sums().are_known
    assert summed == [len(MUCH)]


def test_bytes_kept_for_the_algorithm_are_summed_with_it() -> None:
    """As for a reader of an archive's directory first, if its objects have another algorithm."""
    integrity = integrity_of()
    little = Sum(integrity)
    little.add(MUCH[:500])
    sums = little.sums()
    integrity.learn(headers_of(CRC32, MUCH), 1500)
    assert sums.of(CRC32) == CRC32.of([MUCH[:500]])


def test_few_bytes_wait_for_the_algorithm_before_they_are_summed() -> None:
    """The first sum of a process is an import of 40 ms, and many servers keep no checksums."""
    summed: list[int] = []
    integrity = integrity_of()
    integrity.algorithms = (counting(summed),)
    for _ in range(3):
        Sum(integrity).add(MUCH[: 500 * KIB])
    assert summed == [500 * KIB]  # the third: no more than 1 MiB is kept


def test_bytes_kept_to_be_summed_are_summed_with_the_next() -> None:
    received = Sum(integrity_of())
    received.add(b"as it ")
    received.add(b"came")
    assert received.sums().of(CRC64NVME) == CRC64NVME.of([b"as it came"])


def test_nothing_is_kept_if_the_buckets_algorithm_is_known() -> None:
    summed: list[int] = []
    Sum(integrity_of(known=counting(summed))).add(b"as it came")
    assert summed == [10]


def test_what_comes_while_s3_is_being_asked_is_summed_after_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unnecessary summing costs as much as receiving, and the first sum of a process costs an import."""

    class Answered(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            integrity.ask(lambda: integrity.learn({}, 15))
            return super().wait(timeout)

    summed: list[int] = []
    integrity = integrity_of(known=counting(summed))
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Event", Answered)
        integrity.announce()
    Sum(integrity).add(MUCH)
    assert summed == []


def test_a_long_read_in_order_requests_the_checksum_first() -> None:
    asked = threading.Event()

    class Watched(ChecksummedObject):
        def __call__(self, request: ReceivedRequest) -> Any:
            if request.method == "HEAD":
                asked.set()
            return super().__call__(request)

    obj = Watched(bytes(12 * PART))
    with ScriptedServer(handler=obj) as server, client_of(server.endpoint) as client:
        reader = open_object(client, "b")
        assert len(reader.read(PART)) == PART
        assert obj.count("HEAD") == 0
        for _ in range(2):
            reader.read(PART)
        assert asked.wait(30)


def test_a_missing_checksum_response_is_awaited_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    class Unanswered(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or math.inf)
            return super().wait(0)

    integrity = integrity_of()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Event", Unanswered)
        integrity.announce()
    received = Sum(integrity)
    received.add(MUCH)
    received.add(b"and more")
    assert [seconds < 1 for seconds in waited] == [True]
    assert received.sums().of(CRC64NVME) == CRC64NVME.of([MUCH, b"and more"])


def test_no_thread_waits_for_an_algorithm_if_nothing_is_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float | None] = []
    integrity = integrity_of("off")
    integrity.announce()
    received = Sum(integrity)
    assert integrity.algorithms == ()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Event, "wait", lambda event, timeout=None: waited.append(timeout))
        received.add(MUCH)
    assert waited == []


def test_a_stream_says_so_before_it_ends() -> None:
    obj = ChecksummedObject(LARGE, spoil=lambda start, times: start == 2 * PART)
    got: list[bytes] = []

    def collect(reader: Any) -> bytes:
        got.extend(iter(lambda: reader.read(MIB), b""))
        return b""

    with pytest.raises(S3ChecksumError, match=f"bytes 0 to {len(LARGE)} "):
        read(obj, collect)
    assert sum(map(len, got)) < len(LARGE)


@pytest.mark.parametrize("constructor", [S3ReaderConstructor.sequential(), S3ReaderConstructor.range_based(MIB)])
def test_other_ways_of_reading(constructor: Any) -> None:
    for wrong in (False, True):
        obj = ChecksummedObject(LARGE, spoil=lambda start, times, wrong=wrong: wrong and start == 0)
        with ScriptedServer(handler=obj) as server, client_of(server.endpoint) as client:
            reader = open_object(client, "b", reader_constructor=constructor)
            if wrong:
                with pytest.raises(S3ChecksumError):
                    in_pieces(reader)
            else:
                assert in_pieces(reader) == LARGE


class ReaderOfAProgram(S3Reader):
    """PyTorch looks for its ``read`` while an error of ``readinto`` is pending."""


@pytest.mark.parametrize("constructor", [S3ReaderConstructor.default(), ReaderOfAProgram], ids=["ours", "a program's"])
def test_torch_load_never_returns_wrong_tensors(constructor: Any) -> None:
    saved = io.BytesIO()
    torch.save({"weight": torch.arange(3 * 2**20), "bias": torch.ones(1000)}, saved)
    data = saved.getvalue()

    def load(reader: Any) -> bytes:
        return bytes(torch.load(reader)["weight"].numpy().tobytes())

    def read(obj: ChecksummedObject, how: Callable[[Any], bytes]) -> bytes:
        with ScriptedServer(handler=obj) as server, client_of(server.endpoint) as client:
            return how(open_object(client, "b", reader_constructor=constructor))

    assert read(ChecksummedObject(data), load) == torch.arange(3 * 2**20).numpy().tobytes()
    spoilt = ChecksummedObject(data, spoil=lambda start, times: start == 2 * PART)
    with pytest.raises(S3ChecksumError):
        read(spoilt, load)
    assert spoilt.spoilt


@pytest.mark.parametrize("how", WHOLE)
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_required_checksums_need_a_server_that_has_them(data: bytes, how: str) -> None:
    assert read(ChecksummedObject(data), WHOLE[how], checksum="required") == data
    with pytest.raises(S3ChecksumError, match=r'offers no checksum .* checksum="required"'):
        read(ChecksummedObject(data, None), WHOLE[how], checksum="required")


def test_composite_checksums_are_none() -> None:
    obj = ChecksummedObject(SMALL)
    obj.checksums["x-amz-checksum-type"] = "COMPOSITE"
    obj.checksums[CRC64NVME.header] = CRC64NVME.encode(1)
    assert read(obj, WHOLE["read"]) == SMALL


def test_a_checksum_of_another_version_is_none() -> None:
    """The response to HEAD may come before the object is overwritten, or after."""

    class Overwritten(ChecksummedObject):
        def __call__(self, request: Any) -> Any:
            if request.method == "HEAD":
                self.requests.append(request)
                other = {"ETag": '"two"', CRC64NVME.header: CRC64NVME.encode(7), "Content-Length": str(len(LARGE))}
                return response(200, headers=other)
            return super().__call__(request)

    obj = Overwritten(LARGE)
    assert read(obj, WHOLE["read"]) == LARGE
    assert obj.count("HEAD") == 2  # at first, and once more at the end
    with pytest.raises(S3ChecksumError, match="it was overwritten while it was being read"):
        read(Overwritten(LARGE), WHOLE["read"], checksum="required")


def test_off_asks_for_nothing() -> None:
    obj = ChecksummedObject(LARGE, spoil=lambda start, times: start == 0)
    assert read(obj, WHOLE["read"], checksum="off") != LARGE
    assert [request.method for request in obj.requests] == ["GET"] * 4
    assert not any("checksum" in name for request in obj.requests for name in request.headers)


def test_a_bucket_without_checksums_is_not_asked_forever() -> None:
    obj = ChecksummedObject(LARGE, None)
    with ScriptedServer(handler=obj) as server, client_of(server.endpoint) as client:
        for number in range(6):
            assert open_object(client, "b", f"key-{number}").read() == LARGE
    assert obj.count("HEAD") == 3


def test_the_checksum_mode_is_signed() -> None:
    obj = ChecksummedObject(SMALL)
    read(obj, WHOLE["read"])
    assert "x-amz-checksum-mode" in obj.requests[0].headers["authorization"]
