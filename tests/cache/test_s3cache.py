"""``S3Cache`` below the datasets: the same bytes with fewer requests, and never an additional error."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path
from typing import Any

import pytest

from s3torchconnector import (
    S3Cache,
    S3ClientConfig,
    S3DataLoader,
    S3IterableDataset,
    S3Manifest,
    S3MapDataset,
    S3Reader,
    S3ReaderConstructor,
    S3StreamingDataset,
)
from s3torchconnector._cache._format import INDEX_NAME
from s3torchconnector.errors import S3AccessDeniedError, S3ConfigurationError, S3ObjectChangedError
from s3torchconnector.testing import S3Server
from tests.cache.support import MIB, processes
from tests.datasets.contract import fill
from tests.servers.http_messages import s3_error
from tests.servers.processes import run
from tests.servers.proxy import RecordingProxy, Replace, first
from tests.streaming.support import key_and_bytes, loading

CONTENTS = {f"data/{i:03}": f"{i} ".encode() * (i + 1) for i in range(40)}
LIMIT = 16 * MIB


@pytest.fixture(scope="module")
def _objects(s3_server: S3Server) -> str:
    s3_server.make_bucket("cached")
    fill(s3_server, "cached", CONTENTS)
    return "s3://cached/data/"


@pytest.fixture
def manifest(_objects: str, s3_server: S3Server, proxy: RecordingProxy) -> S3Manifest:
    """Of objects that are read through the proxy, by separate clients."""
    config = S3ClientConfig(max_attempts=1, part_size=5 * MIB + id(proxy) % 1000)
    manifest = S3Manifest.from_prefix(
        _objects, region=s3_server.region, endpoint=proxy.endpoint, s3client_config=config
    )
    proxy.exchanges.clear()
    return manifest


@pytest.fixture
def cache(tmp_path: Path) -> S3Cache:
    return S3Cache(tmp_path / "cache", LIMIT)


def streaming(manifest: S3Manifest, cache: S3Cache, **changes: Any) -> S3StreamingDataset:
    return S3StreamingDataset(manifest, **{"transform": key_and_bytes, "batch_size": 4, "cache": cache, **changes})


def epoch(loader: Any) -> dict[str, bytes]:
    return dict(sample for batch in loader for sample in batch)


@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "fork"), (1, "spawn")])
def test_the_second_epoch_requests_nothing(
    manifest: S3Manifest, cache: S3Cache, proxy: RecordingProxy, workers: int, context: str | None
) -> None:
    options = {
        "num_workers": workers, "multiprocessing_context": context, "persistent_workers": context == "spawn"
    }  # fmt: skip
    with loading(streaming(manifest, cache), **options) as loader:
        assert epoch(loader) == CONTENTS
        assert len(proxy.of("GET")) == len(CONTENTS)
        assert loader.stats()["cache_hits"] == 0
        proxy.exchanges.clear()
        assert epoch(loader) == CONTENTS
        assert proxy.of("GET") == []
        assert loader.stats()["cache_hits"] == len(CONTENTS)
    stats = cache.stats()
    assert (stats["hits"], stats["misses"], stats["entries"]) == (40, 40, 40)
    assert stats["hit_bytes"] == sum(map(len, CONTENTS.values()))
    assert 0 < stats["bytes"] <= LIMIT


@pytest.mark.parametrize("kind", [S3MapDataset, S3IterableDataset])
def test_other_datasets_of_a_manifest_use_the_same_cache(
    manifest: S3Manifest, cache: S3Cache, proxy: RecordingProxy, kind: Any
) -> None:
    list(S3DataLoader(streaming(manifest, cache), collate_fn=list))
    proxy.exchanges.clear()
    dataset = kind.from_manifest(manifest, transform=key_and_bytes, cache=S3Cache(cache.path, LIMIT))
    assert dict(dataset) == CONTENTS
    assert dict(pickle.loads(pickle.dumps(dataset))) == CONTENTS
    assert proxy.of("GET") == []


def test_an_object_that_was_overwritten_is_another_one(
    s3_server: S3Server, bucket: str, cache: S3Cache, manifest: S3Manifest
) -> None:
    where: Any = {"region": s3_server.region, "endpoint": s3_server.endpoint}
    fill(s3_server, bucket, {"a": b"first"})
    before = S3Manifest.from_prefix(f"s3://{bucket}/", **where)
    assert list(streaming(before, cache, transform=S3Reader.read)) == [b"first"]
    (s3_server.folder / bucket / "a").write_bytes(b"other")
    os.utime(s3_server.folder / bucket / "a", (2e9, 2e9))
    after = S3Manifest.from_prefix(f"s3://{bucket}/", **where)
    assert list(streaming(after, cache, transform=S3Reader.read)) == [b"other"]
    assert list(streaming(before, cache, transform=S3Reader.read)) == [b"first"]  # the version that was listed
    with pytest.raises(S3ObjectChangedError):
        list(S3StreamingDataset(before, transform=S3Reader.read))


def in_pieces(reader: S3Reader) -> bytes:
    """As decoders read: the head, the tail, and then the rest in small pieces."""
    head, size = reader.read(2), reader.seek(0, os.SEEK_END)
    reader.seek(max(0, size - 3))
    tail = reader.read()
    reader.seek(2)
    rest = bytearray(size)
    while (at := reader.tell()) < size:
        count = reader.readinto(memoryview(rest)[at : at + 7])
        assert bytes(reader.peek(1)[:1]) == b"" or reader.tell() == at + count
    whole = head + bytes(rest[2:])
    assert whole.endswith(tail)
    assert copy(reader).read() == b""
    reader.seek(1)
    assert pickle.loads(pickle.dumps(reader)).read() == whole[1:]
    return whole


def by_lines(reader: S3Reader) -> bytes:
    return b"".join(reader)


@pytest.mark.parametrize("transform", [in_pieces, by_lines])
@pytest.mark.parametrize("name", ["default", "sequential", "dcp_optimized"])
def test_whatever_reads_an_object_reads_the_same_from_the_cache(
    manifest: S3Manifest,
    cache: S3Cache,
    proxy: RecordingProxy,
    transform: Callable[[S3Reader], bytes],
    name: str,
) -> None:
    constructor = getattr(S3ReaderConstructor, name)()
    dataset = S3MapDataset.from_manifest(manifest, transform=transform, cache=cache, reader_constructor=constructor)
    some = range(0, 40, 5)
    for _ in range(2):
        assert [dataset[i] for i in some] == [list(CONTENTS.values())[i] for i in some]
    # A copy of a reader reads from the cache, too: it has been stored by then.
    assert len(proxy.of("GET")) == len(some)


def test_a_reader_of_pieces_fetches_no_more_than_it_reads(
    manifest: S3Manifest, cache: S3Cache, proxy: RecordingProxy
) -> None:
    constructor = S3ReaderConstructor.range_based(buffer_size=0)

    def first_bytes() -> bytes:
        dataset = S3MapDataset.from_manifest(
            manifest, transform=lambda reader: reader.read(2), cache=cache, reader_constructor=constructor
        )
        return dataset[39]

    assert first_bytes() == CONTENTS["data/039"][:2]
    assert [get.body_bytes for get in proxy.of("GET")] == [2]
    assert cache.stats()["entries"] == 0
    list(S3MapDataset.from_manifest(manifest, transform=S3Reader.read, cache=cache))
    proxy.exchanges.clear()
    assert first_bytes() == CONTENTS["data/039"][:2]
    assert proxy.of("GET") == []


def read_in_place(reader: S3Reader) -> bytes:
    memory = bytearray(12 * MIB)
    return bytes(memory[: reader.readinto(memory)])


def test_large_objects_are_stored_if_they_are_read_at_once(
    s3_server: S3Server, bucket: str, proxy: RecordingProxy, tmp_path: Path
) -> None:
    content = os.urandom(11 * MIB)
    fill(s3_server, bucket, {"large": content, "larger": content * 2})
    config = S3ClientConfig(part_size=5 * MIB)
    manifest = S3Manifest.from_prefix(
        f"s3://{bucket}/", region=s3_server.region, endpoint=proxy.endpoint, s3client_config=config
    )
    cache = S3Cache(tmp_path, 400 * MIB)  # segments of 12.5 MiB
    proxy.exchanges.clear()

    def dataset(transform: Any) -> S3MapDataset:
        return S3MapDataset.from_manifest(manifest, transform=transform, cache=cache)

    assert dataset(lambda reader: reader.read(100))[0] == content[:100]
    assert cache.stats()["entries"] == 0
    for transform in (read_in_place, S3Reader.read, lambda reader: reader.read(12 * MIB)):
        cache.clear()
        assert dataset(transform)[0] == content
        assert cache.stats()["entries"] == 1
        proxy.exchanges.clear()
        assert dataset(transform)[0] == content
        assert dataset(lambda reader: reader.read(100))[0] == content[:100]
        assert proxy.of("GET") == []
        assert dataset(S3Reader.read)[1] == content * 2  # too large for a segment
        assert cache.stats()["entries"] == 1


def test_an_error_of_s3_is_raised_and_nothing_is_stored(
    manifest: S3Manifest, cache: S3Cache, proxy: RecordingProxy
) -> None:
    dataset = S3MapDataset.from_manifest(manifest, transform=S3Reader.read, cache=cache)
    proxy.misbehave = first(1, Replace(s3_error(403, "AccessDenied")))
    with pytest.raises(S3AccessDeniedError):
        dataset[7]
    assert cache.stats()["entries"] == 0
    assert dataset[7] == CONTENTS["data/007"]
    assert cache.stats()["entries"] == 1


# -- the disk ---------------------------------------------------------------------------------------------------------


def break_by_removing(cache: S3Cache) -> None:
    shutil.rmtree(cache.path)


def break_by_a_file(cache: S3Cache) -> None:
    shutil.rmtree(cache.path)
    Path(cache.path).write_bytes(b"")


def break_the_header(cache: S3Cache) -> None:
    (Path(cache.path) / INDEX_NAME).write_bytes(b"nonsense" * 10)


def break_by_truncating(cache: S3Cache) -> None:
    for name in os.listdir(cache.path):
        os.truncate(Path(cache.path) / name, 100)


def break_the_segments(cache: S3Cache) -> None:
    for name in os.listdir(cache.path):
        if name != INDEX_NAME:
            (Path(cache.path) / name).write_bytes(bytes(range(256)) * 100)


def break_everything(cache: S3Cache) -> None:
    for name in os.listdir(cache.path):
        path = Path(cache.path) / name
        path.write_bytes(os.urandom(path.stat().st_size))


FAULTS = [
    break_by_removing,
    break_by_a_file,
    break_the_header,
    break_by_truncating,
    break_the_segments,
    break_everything,
]


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
def test_training_goes_on_whatever_happens_to_the_disk(
    manifest: S3Manifest,
    cache: S3Cache,
    caplog: pytest.LogCaptureFixture,
    fault: Callable[[S3Cache], None],
    is_open: bool,
) -> None:
    with loading(streaming(manifest, cache)) as loader:
        assert epoch(loader) == CONTENTS
    fault(cache)
    used = cache if is_open else pickle.loads(pickle.dumps(cache))
    with loading(streaming(manifest, used)) as loader:
        for _ in range(2):
            assert epoch(loader) == CONTENTS
    warnings = [record for record in caplog.records if "cache directory" in record.getMessage()]
    assert sum(record.levelno >= logging.WARNING for record in warnings) <= 1


def in_child(action: Callable[[], None]) -> None:
    """Run something in a forked child, which may change what a process is allowed to do."""
    with processes(1, lambda _: action()) as (child,):
        child.join()
        assert child.exitcode == 0


def test_a_full_disk_is_one_warning(manifest: S3Manifest, cache: S3Cache, caplog: pytest.LogCaptureFixture) -> None:
    """What is written beyond a limit of this process fails, as it does on a full disk."""

    with loading(streaming(manifest, cache)) as loader:

        def train() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4500, 4500))
            for _ in range(2):
                assert epoch(loader) == CONTENTS
            warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
            assert [os.strerror(errno.EFBIG) in text for text in warnings if "cache directory" in text] == [True]

        in_child(train)
    other = S3Cache(cache.path, LIMIT)  # it is whole, and goes on when there is room
    with loading(streaming(manifest, other)) as loader:
        assert epoch(loader) == CONTENTS
        assert epoch(loader) == CONTENTS
    assert other.stats()["entries"] == 40


NOBODY = 65534


@pytest.fixture
def visible_cache() -> Iterator[S3Cache]:
    """In a directory that every user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        cache = S3Cache(folder, LIMIT)
        yield cache
        os.chmod(folder, 0o755)


def test_a_cache_of_another_user_is_one_warning(
    manifest: S3Manifest, visible_cache: S3Cache, caplog: pytest.LogCaptureFixture
) -> None:
    cache = visible_cache
    with loading(streaming(manifest, cache)) as loader:
        epoch(loader)

    def train() -> None:
        if os.getuid() == 0:
            os.setuid(NOBODY)
        else:
            os.chmod(Path(cache.path) / INDEX_NAME, 0)
        other = S3Cache(cache.path, LIMIT)
        assert epoch(S3DataLoader(streaming(manifest, other), collate_fn=list)) == CONTENTS
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert [os.strerror(errno.EACCES) in text for text in warnings if "cache directory" in text] == [True]

    in_child(train)


def test_a_cache_that_is_only_readable_is_read(
    manifest: S3Manifest, visible_cache: S3Cache, caplog: pytest.LogCaptureFixture, proxy: RecordingProxy
) -> None:
    cache = visible_cache
    half = manifest.filter(lambda info: info.key < "data/020")
    with loading(streaming(half, cache)) as loader:
        epoch(loader)
    for name in os.listdir(cache.path):
        os.chmod(Path(cache.path) / name, 0o444)
    os.chmod(cache.path, 0o555)
    proxy.exchanges.clear()

    def train() -> None:
        if os.getuid() == 0:
            os.setuid(NOBODY)
        other = S3Cache(cache.path, LIMIT)
        for _ in range(2):
            assert epoch(S3DataLoader(streaming(manifest, other), collate_fn=list)) == CONTENTS
        stats = other.stats()
        assert (stats["hits"], stats["misses"]) == (40, 40)
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert ["only read" in text for text in warnings if "cache directory" in text] == [True]

    in_child(train)


# -- the object -------------------------------------------------------------------------------------------------------


def test_it_pickles_as_its_path_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = S3Cache("relative", LIMIT, always_verify=True)
    cache._add(b"x" * 20, b"content")
    copied = pickle.loads(pickle.dumps(cache))
    assert (copied.path, copied.max_bytes) == (str(tmp_path / "relative"), LIMIT)
    assert copied._always_verify
    entry = copied._find(b"x" * 20, 7)
    assert entry is not None
    assert copied._load(b"x" * 20, entry) == b"content"
    assert copied._find(b"x" * 20, 8) is None
    assert repr(copied) == f"S3Cache('{tmp_path}/relative', max_bytes={LIMIT})"


def test_clearing_deletes_stored_objects(manifest: S3Manifest, cache: S3Cache, proxy: RecordingProxy) -> None:
    with loading(streaming(manifest, cache)) as loader:
        epoch(loader)
        cache.clear()
        assert cache.stats()["entries"] == 0
        proxy.exchanges.clear()
        assert epoch(loader) == CONTENTS
        assert len(proxy.of("GET")) == 40


def test_a_directory_that_cannot_be_used_is_said_with_advice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / INDEX_NAME).write_bytes(b"a diary")
    cache = S3Cache(tmp_path, LIMIT)
    [warning] = [record.getMessage() for record in caplog.records]
    assert warning.startswith(f"The cache directory {tmp_path}: its {INDEX_NAME} is no index of a cache")
    assert warning.endswith("or give another one")
    assert cache.stats() == dict.fromkeys(["hits", "misses", "hit_bytes", "entries", "bytes", "evictions"], 0)
    with pytest.raises(OSError, match="see the warning"):
        cache.clear()


def test_two_limits_on_one_directory_keep_the_smaller(cache: S3Cache, caplog: pytest.LogCaptureFixture) -> None:
    S3Cache(cache.path, LIMIT)
    assert caplog.records == []
    S3Cache(cache.path, 2 * LIMIT)
    assert "keeps to" in caplog.text
    caplog.clear()
    S3Cache(cache.path, LIMIT // 2)
    assert caplog.records == []
    S3Cache(cache.path, LIMIT)
    assert f"max_bytes={LIMIT // 2}" in caplog.text


@pytest.mark.parametrize("max_bytes", [0, -1, 2**20 - 1, 1e9, True, "1GB"])
def test_a_limit_that_is_none_is_refused(tmp_path: Path, max_bytes: Any) -> None:
    with pytest.raises(S3ConfigurationError, match="max_bytes"):
        S3Cache(tmp_path / "cache", max_bytes)
    assert not (tmp_path / "cache").exists()


def test_a_system_without_fcntl_is_an_error_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['fcntl'] = None\n"
        "from s3torchconnector import S3Cache\n"
        f"try: S3Cache({str(tmp_path / 'cache')!r}, 2**30)\n"
        "except ValueError as error: print(type(error).__name__, error)\n"
    )
    result = run([sys.executable, "-c", program], 60, env=dict(os.environ))
    assert result.stdout.startswith("S3ConfigurationError S3Cache needs the locks of fcntl"), result.stderr
    assert not (tmp_path / "cache").exists()
