"""Programs on a system without the names of POSIX: ``python tests/processes/without_posix.py ENDPOINT BUCKET PART``.

Other people's modules are imported first, since they know which system this is. Then what Windows lacks is taken away,
and only then is the package imported; the same happens in each worker, which imports this file before all else.
Not taken away is what multiprocessing and torch use here at every turn (``signal.pthread_sigmask``, ``SIGCHLD``).
"""

from __future__ import annotations

import multiprocessing.connection
import multiprocessing.resource_tracker
import multiprocessing.shared_memory
import multiprocessing.util  # noqa: F401
import subprocess  # noqa: F401
import sys
import tempfile
from typing import Any

import botocore.session  # noqa: F401
import pytest
import safetensors.torch  # noqa: F401
import torch
import torch.distributed.checkpoint as dcp
from torch.utils.data import DataLoader, Dataset

_MISSING = {
    "os": (
        "fork", "forkpty", "register_at_fork", "sched_getaffinity", "pread", "preadv", "pwrite", "pwritev",
        "set_blocking", "get_blocking", "sendfile", "memfd_create", "getuid", "geteuid", "getgid", "getegid", "killpg",
        "setsid", "getpgid", "fchmod", "mkfifo", "posix_fallocate", "sysconf", "wait3", "wait4", "O_NONBLOCK",
    ),
    "select": ("poll", "epoll", "POLLIN", "POLLOUT", "POLLERR", "POLLHUP", "POLLNVAL", "EPOLLIN"),
    "socket": ("AF_UNIX", "MSG_DONTWAIT", "SCM_RIGHTS", "CMSG_LEN", "TCP_QUICKACK", "send_fds", "recv_fds"),
    "mmap": ("MAP_PRIVATE", "MAP_ANONYMOUS", "MAP_SHARED"),
    "signal": ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "setitimer", "pthread_kill"),
}  # fmt: skip
_MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "pty", "syslog")
IMAGES = 12
MIB = 1 << 20


class _Absent:
    """An attribute that ``hasattr`` does not find."""

    def __get__(self, *_: object) -> None:
        raise AttributeError


def socketpair(*_: object) -> tuple[Any, Any]:
    """Two sockets that are connected to each other, as Python makes them on Windows."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        first = socket.create_connection(listener.getsockname())
        second, _address = listener.accept()
    return first, second


def take_posix_away() -> None:
    for module, names in _MISSING.items():
        for name in names:
            if hasattr(sys.modules.get(module) or __import__(module), name):
                delattr(sys.modules[module], name)
    import socket

    socket.socket.sendmsg = _Absent()  # type: ignore[method-assign, assignment]
    socket.socketpair = socketpair  # type: ignore[assignment]
    for name in _MODULES:
        sys.modules[name] = None  # type: ignore[assignment]


take_posix_away()

import s3torchconnector as s3  # noqa: E402
from s3torchconnector.dcp import S3StorageReader, S3StorageWriter  # noqa: E402
from s3torchconnector.errors import S3ConfigurationError, S3ConnectionError, S3NotFoundError  # noqa: E402
from s3torchconnector.testing import S3Server  # noqa: E402

ENDPOINT, BUCKET = sys.argv[1:3]
WHERE: dict[str, Any] = {"region": "us-east-1", "endpoint": ENDPOINT}


def uri(key: str) -> str:
    return f"s3://{BUCKET}/{key}"


def image_of(reader: s3.S3Reader) -> bytes:
    return reader.read()


class Both(Dataset[list[bytes]]):
    """Two samples: what a map dataset has, and what an iterable one. One worker is enough for both: a start is slow."""

    def __init__(self, in_map: s3.S3MapDataset, in_turn: s3.S3IterableDataset) -> None:
        self.in_map, self.in_turn = in_map, in_turn

    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> list[bytes]:
        return list(self.in_turn) if i else self.in_map.__getitems__(list(range(IMAGES)))


def objects() -> None:
    data = bytes(range(256)) * (13 * MIB // 256)
    config = s3.S3ClientConfig(part_size=5 * MIB, connect_timeout=5.0, max_attempts=3)
    with s3.S3Client(**WHERE, s3client_config=config) as client:
        with client.put_object(BUCKET, "large") as writer:
            writer.write(data)
        with client.get_object(BUCKET, "large") as reader:
            assert reader.read() == data
            reader.seek(-5, 2)
            assert reader.read() == data[-5:]
            buffer = bytearray(3 * MIB)
            reader.seek(MIB)
            assert reader.readinto(buffer) == len(buffer)
            assert buffer == data[MIB : 4 * MIB]
        client.copy_object(BUCKET, "large", BUCKET, "copy")
        client.delete_object(BUCKET, "copy")
        assert [info.key for page in client.list_objects(BUCKET) for info in page.object_info] == ["large"]
        writer = client.put_object(BUCKET, "given up")
        writer.write(data)
        writer.abort()
        with pytest.raises(S3NotFoundError):
            client.head_object(BUCKET, "given up")
    once = s3.S3ClientConfig(max_attempts=1)
    client = s3.S3Client("us-east-1", endpoint="http://127.0.0.1:9", s3client_config=once)
    with client, pytest.raises(S3ConnectionError, match="refused"):
        client.head_object(BUCKET, "key")


def datasets() -> None:
    checkpoint, images = s3.S3Checkpoint(**WHERE), [b"%03d" % number * 1000 for number in range(IMAGES)]
    for number, image in enumerate(images):
        with checkpoint.writer(uri(f"images/{number:03}")) as writer:
            writer.write(image)
    in_map = s3.S3MapDataset.from_prefix(uri("images/"), **WHERE, transform=image_of)
    in_turn = s3.S3IterableDataset.from_prefix(uri("images/"), **WHERE, transform=image_of, enable_sharding=True)
    assert in_map.__getitems__(list(range(IMAGES))) == images
    assert list(in_turn) == images
    workers: dict[str, Any] = {"num_workers": 1, "multiprocessing_context": "spawn", "collate_fn": list}
    loader: Any = DataLoader(Both(in_map, in_turn), batch_size=2, **workers)
    assert list(loader) == [[images, images]]
    streamed = s3.S3StreamingDataset(uri("images/"), **WHERE, transform=image_of, batch_size=2)
    loader = s3.S3DataLoader(streamed, persistent_workers=True, **workers)
    epochs = [[image for batch in loader for image in batch] for _ in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [images] * 2
    assert epochs[0] != epochs[1]  # workers know which epoch it is


def checkpoints() -> None:
    state = {"weights": torch.arange(2 * MIB, dtype=torch.float32), "small": torch.ones(3)}
    checkpoint = s3.S3Checkpoint(**WHERE)
    with checkpoint.writer(uri("state.pt")) as writer:
        torch.save(state, writer)
    check(torch.load(checkpoint.reader(uri("state.pt"))), state)
    checkpoint.save_safetensors(state, uri("state.safetensors"))
    check(checkpoint.load_safetensors(uri("state.safetensors")), state)
    manager = s3.S3CheckpointManager(uri("run"), **WHERE)
    manager.save(1, state)
    manager.save_async(2, state).result()
    assert manager.steps() == [1, 2]
    check(manager.load(), state)
    manager.close()
    dcp.save(state, storage_writer=S3StorageWriter(path=uri("dcp"), **WHERE))
    loaded = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    dcp.load(loaded, storage_reader=S3StorageReader(path=uri("dcp"), **WHERE))
    check(loaded, state)


def check(loaded: dict[str, Any], state: dict[str, Any]) -> None:
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def limits() -> None:
    with pytest.raises(RuntimeError, match="rclone serve s3"):
        S3Server().start()
    s3.S3Manifest.from_prefix(uri("images/"), **WHERE).save(uri("manifest"))
    assert len(s3.S3Manifest.load(uri("manifest"), **WHERE)) == IMAGES
    with tempfile.TemporaryDirectory() as folder, pytest.raises(S3ConfigurationError, match="leave it out"):
        s3.S3Manifest.load(uri("manifest"), directory=folder, **WHERE)


if __name__ == "__main__":
    for part in sys.argv[3:]:
        {"objects": objects, "datasets": datasets, "checkpoints": checkpoints, "limits": limits}[part]()
        print(part, flush=True)
