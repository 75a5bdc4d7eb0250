"""An object that was handed out whole has been compared, however it was read. Otherwise it is an error, or the log says
why.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import save

from s3torchconnector import S3Checkpoint, S3ClientConfig
from s3torchconnector._errors import S3ChecksumError
from s3torchconnector._wire._checksums import Algorithm
from tests.integrity.flipping import (
    KINDS,
    LARGE,
    POLICIES,
    PROMPT,
    REFUSED,
    SMALL,
    FlippedObject,
    Recorder,
    outcome,
    read_in_order,
)
from tests.integrity.support import CRC32, CRC64NVME
from tests.reading.support import KIB, MIB, PART, client_of, content, open_object, wait_until
from tests.reading.test_reader_fork import Child
from tests.servers.scripted import ScriptedServer

pytestmark = pytest.mark.usefixtures("s3_server")  # for its keys


# -- the first object that a process reads -----------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("mode", ["required", "when_supported"])
def test_a_first_object_is_verified_by_a_late_checksum(kinds: tuple[Algorithm, ...], mode: str) -> None:
    """Whatever kind was guessed before."""
    for flipped in (None, PART + 5):
        obj = FlippedObject(LARGE, kinds, flipped, late=len(LARGE))
        error, recorder = outcome(obj, read_in_order, checksum=mode)
        assert (error is not None) == (flipped is not None)
        assert recorder.is_whole == (flipped is None)


@pytest.mark.parametrize("load", ["torch", "safetensors"])
def test_the_first_tensors_that_are_loaded_are_verified(load: str) -> None:
    tensors = {"weight": torch.arange(3 * 2**20)}
    saved = io.BytesIO()
    torch.save(tensors, saved)
    data = saved.getvalue() if load == "torch" else bytes(save(tensors))
    obj = FlippedObject(data, [CRC32], len(data) // 2, late=len(data) * 9 // 10)
    config = S3ClientConfig(part_size=PART, checksum="required")
    with ScriptedServer(handler=obj) as server, client_of(server.endpoint, checksum="required") as client:
        checkpoint = S3Checkpoint("us-east-1", endpoint=server.endpoint, s3client_config=config)
        loads: dict[str, Callable[[], object]] = {
            "torch": lambda: torch.load(open_object(client, "b")),
            "safetensors": lambda: checkpoint.load_safetensors("s3://b/f"),
        }
        with pytest.raises(S3ChecksumError):
            loads[load]()


@pytest.mark.parametrize("only", [None, 1], ids=["each time", "once"])
@pytest.mark.parametrize("flipped", [None, 5, PART + 5])
def test_bytes_summed_with_another_algorithm_are_read_again(flipped: int | None, only: int | None) -> None:
    """In a bucket of two kinds, where the first object had the other."""
    first, second = FlippedObject(LARGE, [CRC64NVME]), FlippedObject(LARGE, [CRC32], flipped, only, late=len(LARGE))
    objects = {"first": first, "second": second}
    with (
        ScriptedServer(handler=lambda request: objects[request.path.rpartition("/")[2]](request)) as server,
        client_of(server.endpoint, checksum="required") as client,
    ):
        assert open_object(client, "b", "first").read() == LARGE
        recorder = Recorder(open_object(client, "b", "second"), LARGE)
        if flipped is None:
            read_in_order(recorder)
            assert recorder.is_whole
        else:
            with pytest.raises(S3ChecksumError):
                read_in_order(recorder)


# -- read-ahead that made way, and reads that overlap -----------------------------------------------------------------


@pytest.mark.parametrize("flipped", [False, True])
def test_streams_whose_read_ahead_was_released_are_verified(flipped: bool) -> None:
    data = content(0, 4 * PART)
    with ScriptedServer(handler=lambda request: objects[request.path](request)) as server:
        objects = {f"/b/{n}": FlippedObject(data, [CRC64NVME], n * PART + 5 if flipped else None) for n in range(4)}
        settings = {"max_connections": 2, "memory_budget": 8 * MIB, "checksum": "required"}
        with client_of(server.endpoint, **settings) as client:
            recorders = [Recorder(open_object(client, "b", str(n)), data) for n in range(4)]
            ended: list[str] = []
            while len(ended) < 4:
                for recorder in [each for each in recorders if each.reader.key not in ended]:
                    try:
                        count = recorder.read(MIB)
                    except S3ChecksumError:
                        assert flipped
                        count = 0
                    if not count:
                        ended.append(recorder.reader.key)
            assert not any(recorder.is_whole and recorder.is_wrong for recorder in recorders)
            assert flipped or all(recorder.is_whole for recorder in recorders)


@pytest.mark.parametrize("only", [None, 1, 2])
def test_reads_that_overlap_are_compared(only: int | None) -> None:
    def program(recorder: Recorder) -> None:
        recorder.read(8)
        recorder.read(8)
        recorder.seek(0)
        recorder.read(65_536)
        recorder.read(34_456)
        recorder.read(8)

    obj = FlippedObject(SMALL, [CRC64NVME], 5, only)
    error, recorder = outcome(obj, program, "range_based-0", checksum="required")
    assert error is not None
    assert not recorder.is_whole


@pytest.mark.parametrize("only", [None, 2])
def test_a_read_inside_what_was_read_before_is_compared(only: int | None) -> None:
    def program(recorder: Recorder) -> None:
        recorder.read(1000)
        recorder.seek(100)
        recorder.read(50)
        recorder.seek(1000)
        recorder.read(len(SMALL) - 1000)

    for flipped in (None, 120):
        obj = FlippedObject(SMALL, [CRC64NVME], flipped, only)
        error, recorder = outcome(obj, program, "range_based-0", checksum="required")
        assert (error is not None) == (flipped is not None)
        assert recorder.is_whole == (flipped is None)


def test_a_stream_that_jumps_early_is_verified() -> None:
    def program(recorder: Recorder) -> None:
        recorder.read(1000)
        recorder.seek(len(LARGE) - 1000)
        recorder.read(1000)
        recorder.read_all(300 * KIB)

    for flipped in (None, 500):
        error, recorder = outcome(
            FlippedObject(LARGE, [CRC64NVME], flipped), program, "sequential", checksum="required"
        )
        assert (error is not None) == (flipped is not None)
        assert recorder.is_whole == (flipped is None)


def test_what_was_read_before_a_whole_read_is_compared_with_it() -> None:
    def program(recorder: Recorder) -> None:
        recorder.read(8)
        recorder.seek(50_000)
        recorder.read(8)
        recorder.seek(0)
        recorder.readinto(len(SMALL))

    obj = FlippedObject(SMALL, [CRC32], 5, only=1)
    error, _ = outcome(obj, program, "range_based-0")
    assert error is not None
    assert (error.start, error.stop) == (0, 8)
    assert outcome(FlippedObject(SMALL, [CRC32]), program, "range_based-0")[0] is None


def test_after_wrong_bytes_an_object_can_be_read_again() -> None:
    obj = FlippedObject(LARGE, [CRC64NVME], 5, only=1)

    def program(recorder: Recorder) -> None:
        with pytest.raises(S3ChecksumError):
            recorder.read_all(300 * KIB)
        recorder.is_wrong = False
        recorder.read_all(300 * KIB)

    error, recorder = outcome(obj, program)
    assert (error, recorder.is_wrong) == (None, False)


def test_a_second_reading_does_not_fetch_tiles_again() -> None:
    def program(recorder: Recorder) -> None:
        recorder.read_all(500)
        recorder.read_all(1_700)  # otherwise cut

    obj = FlippedObject(SMALL, [CRC64NVME])
    error, _ = outcome(obj, program, "range_based-1000")
    assert error is None
    assert obj.sent <= 2 * len(SMALL)
    assert obj.count("HEAD") == 1


@pytest.mark.parametrize("head", [PROMPT, REFUSED])
def test_bytes_that_come_twice_and_differ_are_an_error(head: str) -> None:
    def program(recorder: Recorder) -> None:
        recorder.read(100)
        recorder.seek(0)
        recorder.read(100)

    obj = FlippedObject(SMALL, [CRC32], 5, only=2, head=head)
    error, _ = outcome(obj, program, "range_based-0")
    assert error is not None
    assert (error.start, error.stop) == (0, 100)


@pytest.mark.parametrize("flipped", [None, PART + 5])
def test_what_a_forked_child_has_from_its_parent_is_compared(flipped: int | None) -> None:
    obj = FlippedObject(LARGE, [CRC64NVME], flipped)

    def read_in_child() -> bytes:
        try:
            recorder.read_all(MIB)
        except S3ChecksumError:
            return b"error"
        return b"whole" if recorder.is_whole and not recorder.is_wrong else b"wrong"

    with ScriptedServer(handler=obj) as server, client_of(server.endpoint) as client:
        reader = open_object(client, "b", reader_constructor=POLICIES["sequential"])
        assert len(reader.read(MIB)) == MIB
        wait_until(lambda: obj.sent == len(LARGE) and all(block.ready for block in reader._object._index))
        recorder = Recorder(reader, LARGE)
        assert Child(read_in_child).result() == (b"error" if flipped else b"whole")
