"""What verification costs: each byte is summed once, by the threads that move it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.integrity.support import CRC64NVME, ChecksummedObject
from tests.integrity.test_downloads import ALL, read
from tests.integrity.test_uploads import Bucket, save
from tests.reading.support import PART, client_of, content
from tests.servers.scripted import ScriptedServer

DATA = content(0, 3 * PART + 1234)

pytestmark = pytest.mark.usefixtures("s3_server")  # for its keys


@pytest.fixture
def summed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """The size of each buffer that is summed from now on, and the thread that does it."""
    calls: list[tuple[int, str]] = []
    update = CRC64NVME.update

    def counted(data: Any, crc: int) -> int:
        calls.append((len(data), threading.current_thread().name))
        return update(data, crc)

    monkeypatch.setitem(CRC64NVME.__dict__, "update", counted)
    return calls


@pytest.mark.parametrize("how", ALL)
def test_a_download_sums_each_byte_once(summed: list[tuple[int, str]], how: str) -> None:
    obj = ChecksummedObject(DATA)
    summed.clear()
    assert read(obj, ALL[how]) == DATA
    assert sum(size for size, _ in summed) == len(DATA)
    on_the_reader = sum(size for size, name in summed if name == threading.main_thread().name)
    assert on_the_reader <= PART  # it receives one range itself, and sums that


def test_an_upload_sums_each_byte_once(summed: list[tuple[int, str]]) -> None:
    with ScriptedServer(handler=Bucket()) as server, client_of(server.endpoint) as client:
        save(client, DATA)
    assert sum(size for size, _ in summed) == len(DATA)
    assert threading.main_thread().name not in {name for _, name in summed}


def test_without_any_to_compare_with_nothing_is_summed(summed: list[tuple[int, str]]) -> None:
    obj = ChecksummedObject(DATA, None)
    with ScriptedServer(handler=obj) as server, client_of(server.endpoint) as client:
        for _ in range(3):
            assert client.get_object("b", "key").read() == DATA
        summed.clear()
        assert client.get_object("b", "key").read() == DATA
    assert summed == []
