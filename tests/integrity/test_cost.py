"""What verification costs: each byte is summed once, by the threads that move it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from s3torchconnector import S3Checkpoint
from s3torchconnector._config import MIB
from s3torchconnector.dcp import S3StorageReader
from s3torchconnector.testing import S3Server
from tests.integrity.support import CRC64NVME, ChecksummedObject
from tests.integrity.test_downloads import ALL, read
from tests.integrity.test_formats import CONFIG, TENSORS, safetensors, serving, stored_checkpoint
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
    # It receives one range itself, and sums that; and little that came before it was known what with.
    assert on_the_reader <= PART + MIB


@pytest.mark.parametrize("how", ALL)
def test_nothing_is_summed_for_a_server_without_checksums(summed: list[tuple[int, str]], how: str) -> None:
    """Not even what comes first, of which nobody has told yet: to begin summing is to import the code that does."""
    obj = ChecksummedObject(DATA, None)
    summed.clear()
    assert read(obj, ALL[how]) == DATA
    assert summed == []


def test_nothing_is_summed_for_a_file_read_in_part(summed: list[tuple[int, str]]) -> None:
    """Nothing can be compared with the checksum of the whole."""
    file = ChecksummedObject(safetensors())
    with serving({"f": file}) as endpoint:
        checkpoint = S3Checkpoint("us-east-1", endpoint=endpoint, s3client_config=CONFIG)
        summed.clear()
        assert list(checkpoint.load_safetensors("s3://b/f", names=["a"])) == ["a"]
    assert summed == []
    assert file.count("HEAD") == 0


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")  # a checkpoint of one process
@pytest.mark.parametrize("whole", [True, False])
def test_of_a_distributed_checkpoint_only_whole_files_are_summed(
    summed: list[tuple[int, str]], s3_server: S3Server, bucket: str, whole: bool
) -> None:
    stored = stored_checkpoint(s3_server, bucket)
    files = {name: ChecksummedObject(data) for name, data in stored.items()}
    state = {name: torch.zeros_like(tensor) for name, tensor in TENSORS.items() if whole or name == "a"}
    with serving(files) as endpoint:
        reader = S3StorageReader("us-east-1", f"s3://{bucket}", endpoint=endpoint, s3client_config=CONFIG)
        summed.clear()
        dcp.load(state, storage_reader=reader)
    read = [name for name in files if whole or name == ".metadata"]
    assert sum(size for size, _ in summed) == sum(len(stored[name]) for name in read)
    data_file = next(file for name, file in files.items() if name != ".metadata")
    assert data_file.count("HEAD") == int(whole)


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
