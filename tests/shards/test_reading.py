"""How samples of archives are fetched: one range each, in the listed version, compared with the sums of the index."""

from __future__ import annotations

import io
import logging
import os
import pickle
import struct
import threading
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

from s3torchconnector import (
    S3Client,
    S3ClientConfig,
    S3DataLoader,
    S3IterableDataset,
    S3Manifest,
    S3MapDataset,
    S3StreamingDataset,
)
from s3torchconnector._datasets._build import build_samples
from s3torchconnector._datasets._chosen_objects import named
from s3torchconnector._datasets._sample_columns import RANGES
from s3torchconnector._datasets._sample_rows import Part, SampleRow
from s3torchconnector._samples._tar import entries_of
from s3torchconnector.errors import S3ChecksumError, S3FormatError, S3NotFoundError, S3ObjectChangedError
from s3torchconnector.testing import S3Server
from tests.servers.http_messages import ReceivedRequest
from tests.servers.proxy import FlipByte, Hook, RecordingProxy
from tests.shards.support import Sample, fill, options, replace, tar
from tests.streaming.support import loading

FILES = {f"{i}.{name}": f"{i} {name} ".encode() * (i + 1) for i in range(8) for name in ("jpg", "txt")}
CONTENT = tar(FILES)
SAMPLES = [{"__key__": str(i), "jpg": FILES[f"{i}.jpg"], "txt": FILES[f"{i}.txt"]} for i in range(8)]


@pytest.fixture
def uri(s3_server: S3Server, bucket: str) -> str:
    fill(s3_server, bucket, {"shards/a.tar": CONTENT})
    return f"s3://{bucket}/shards/a.tar"


def without_url(samples: Any) -> list[Sample]:
    return [{name: value for name, value in sample.items() if name != "__url__"} for sample in samples]


def key_of(sample: Sample) -> str:
    return str(sample["__key__"])


def test_each_sample_is_one_request_for_its_bytes(uri: str, s3_server: S3Server, proxy: RecordingProxy) -> None:
    manifest = S3Manifest.from_tar(uri, **options(s3_server))
    manifest.save(f"{uri}.manifest")
    loaded = S3Manifest.load(f"{uri}.manifest", **options(s3_server, proxy.endpoint))
    assert loaded.fingerprint == manifest.fingerprint
    before = len(proxy.exchanges)
    assert without_url(S3StreamingDataset(loaded, shuffle=False)) == SAMPLES
    entries = entries_of(CONTENT, 0)
    wanted = [(a.start, b.stop - 1) for a, b in zip(entries[::2], entries[1::2], strict=True)]
    assert {each.method for each in proxy.exchanges[before:]} == {"GET"}
    assert sorted(each.range or "" for each in proxy.exchanges[before:]) == sorted(f"bytes={a}-{b}" for a, b in wanted)


@pytest.mark.parametrize("use", ["map", "batch", "iterable", "streaming"])
def test_every_dataset_reads_samples_of_archives(uri: str, s3_server: S3Server, use: str) -> None:
    manifest = S3Manifest.from_tar(uri, **options(s3_server))
    by_index = S3MapDataset.from_manifest(manifest)
    found: dict[str, Callable[[], Any]] = {
        "map": lambda: [by_index[i] for i in range(8)],
        "batch": lambda: by_index.__getitems__(range(8)),
        "iterable": lambda: S3IterableDataset.from_manifest(manifest),
        "streaming": lambda: S3StreamingDataset(manifest, shuffle=False, look_ahead=0),
    }
    assert without_url(found[use]()) == SAMPLES


def test_an_archive_that_was_overwritten_is_an_error(uri: str, s3_server: S3Server) -> None:
    manifest = S3Manifest.from_tar(uri, **options(s3_server))
    replace(s3_server, uri, CONTENT[:512] + b"X" + CONTENT[513:])
    with pytest.raises(S3ObjectChangedError, match=r"a\.tar"):
        next(iter(S3StreamingDataset(manifest)))


def test_bytes_changed_on_the_way_are_fetched_again(uri: str, s3_server: S3Server, proxy: RecordingProxy) -> None:
    manifest = S3Manifest.from_tar(uri, **options(s3_server, proxy.endpoint))
    before = len(proxy.exchanges)
    seen: set[str | None] = set()
    lock = threading.Lock()

    def flip_each_once(request: ReceivedRequest) -> FlipByte | None:
        with lock:  # each connection has a thread
            is_new = request.range not in seen and len(seen) < 3
            seen.add(request.range)
        return FlipByte(1) if is_new else None

    proxy.misbehave = flip_each_once
    assert without_url(S3StreamingDataset(manifest, shuffle=False)) == SAMPLES
    assert len(proxy.exchanges) - before == 8 + 3


def flip_from(start: int) -> Hook:
    """Wrong bytes in every range that begins there."""
    return lambda request: FlipByte(1) if f"bytes={start}-" in (request.range or "") else None


def test_wrong_bytes_never_reach_a_transform(uri: str, s3_server: S3Server, proxy: RecordingProxy) -> None:
    manifest = S3Manifest.from_tar(uri, **options(s3_server, proxy.endpoint))
    entry = entries_of(CONTENT, 0)[2]
    proxy.misbehave = flip_from(entry.start)
    seen: list[str] = []
    dataset = S3StreamingDataset(manifest, shuffle=False, transform=lambda sample: seen.append(key_of(sample)))
    samples = iter(dataset)
    next(samples)
    with pytest.raises(S3ChecksumError, match=r"the member 'jpg' of the sample '1'.* came twice the same") as caught:
        next(samples)
    assert (caught.value.start, caught.value.stop) == (entry.start, entry.stop)
    assert uri in str(caught.value)
    assert len(list(samples)) == 6
    assert seen == ["0", *"234567"]


def test_wrong_bytes_are_replaced_if_errors_are(
    uri: str, s3_server: S3Server, proxy: RecordingProxy, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = S3Manifest.from_tar(uri, **options(s3_server, proxy.endpoint))
    start = entries_of(CONTENT, 0)[2].start
    proxy.misbehave = flip_from(start)
    loader = S3DataLoader(S3StreamingDataset(manifest, batch_size=4, on_error="replace"), collate_fn=list)
    with caplog.at_level(logging.WARNING):
        found = [key_of(sample) for batch in loader for sample in batch]
    assert (len(found), "1" in found) == (8, False)
    assert f"{uri}/1: replaced by another sample" in caplog.text
    assert loader.stats()["replaced"] == 1


def energon(content: bytes) -> bytes:
    """The index that Energon writes of ``CONTENT``, whose samples have two files each."""
    starts = [entry.start - 512 for entry in entries_of(content, 0)[::2]]
    end = entries_of(content, 0)[-1].stop
    return struct.pack(f"<{len(starts) + 1}Q", *starts, end + -end % 512)


def test_energons_index_is_read_instead_of_the_archive(s3_server: S3Server, bucket: str, proxy: RecordingProxy) -> None:
    fill(s3_server, bucket, {"a.tar": CONTENT, "a.tar.idx": energon(CONTENT), "b.tar": CONTENT})
    uri = f"s3://{bucket}/"
    manifest = S3Manifest.from_tar(uri, **options(s3_server, proxy.endpoint))
    read = [each.path.rpartition("/")[2] for each in proxy.of("GET") if not each.query]
    assert sorted(read) == ["a.tar.idx", "b.tar"]  # the listing has told which one has an index
    assert without_url(S3StreamingDataset(manifest, shuffle=False)) == SAMPLES * 2
    dataset = S3StreamingDataset(manifest, shuffle=False, batch_size=10)
    assert dataset.keys_of(0)[6:] == ["a.tar/6", "a.tar/7", "b.tar/0", "b.tar/1"]
    item: Any = manifest[0]
    assert item.members == []
    summed: Any = S3Manifest.from_tar(uri, use_index=False, **options(s3_server))[0]
    assert [member.name for member in summed.members] == ["jpg", "txt"]


@pytest.mark.parametrize(
    ("index", "error"),
    [(b"", "0 bytes"), (bytes(12), "12 bytes"), (struct.pack("<2Q", 512, 512), "not ascending"),
     (struct.pack("<2Q", 0, 513), "not ascending"), (struct.pack("<2Q", 0, len(CONTENT) + 512), "does not fit")],
)  # fmt: skip
def test_an_index_that_cannot_be_is_an_error(s3_server: S3Server, bucket: str, index: bytes, error: str) -> None:
    fill(s3_server, bucket, {"a.tar": CONTENT, "a.tar.idx": index})
    with pytest.raises(S3FormatError, match=rf"a\.tar cannot be read as samples: its index .*{error}"):
        S3Manifest.from_tar(f"s3://{bucket}/a.tar", **options(s3_server))


def test_an_index_of_another_archive_is_an_error_when_it_is_read(s3_server: S3Server, bucket: str) -> None:
    fill(s3_server, bucket, {"a.tar": CONTENT, "a.tar.idx": struct.pack("<3Q", 0, 3072, 5120)})
    samples = iter(S3StreamingDataset(S3Manifest.from_tar(f"s3://{bucket}/", **options(s3_server)), shuffle=False))
    for _ in range(2):
        with pytest.raises(S3FormatError, match="are not one sample, as its index"):
            next(samples)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.tar", CONTENT[:1000], r"truncated: it ends at byte 1000"),
        ("a.tar", b"", "empty"),
        ("a.tar.gz", b"\x1f\x8b" + bytes(2000), r"compressed \(gzip\)"),
        ("a.tar", tar([("0.jpg", b"a"), ("0.JPG", b"b")]), "has two files"),
    ],
)
def test_archives_that_cannot_be_read_are_named(
    s3_server: S3Server, bucket: str, name: str, content: bytes, error: str
) -> None:
    fill(s3_server, bucket, {"0.tar": CONTENT, name: content, "z.tar": CONTENT})
    uris = [f"s3://{bucket}/{each}" for each in ("0.tar", name, "z.tar")]
    with pytest.raises(S3FormatError, match=error) as caught:
        S3Manifest.from_tar(uris, **options(s3_server))
    assert str(caught.value).startswith(f"s3://{bucket}/{name} cannot be read as samples")
    with pytest.raises(S3NotFoundError):
        S3Manifest.from_tar(f"s3://{bucket}/none.tar", **options(s3_server))


def test_a_process_that_dies_goes_on_where_it_was(s3_server: S3Server, bucket: str, proxy: RecordingProxy) -> None:
    large = {f"{i}.tar": tar({f"{i}.txt": bytes(2**20)}) for i in range(3)}
    fill(s3_server, bucket, {**large, "3.tar": tar({"3.txt": b"small"}), "4.tar": b"broken"})
    where: Any = {**options(s3_server, proxy.endpoint), "progress_at": f"s3://{bucket}/progress/"}
    uris = f"s3://{bucket}/{{0..4}}.tar"
    with pytest.raises(S3FormatError, match=r"4\.tar"):
        S3Manifest.from_tar(uris, **where)
    replace(s3_server, f"s3://{bucket}/4.tar", tar({"4.txt": b"x"}))
    proxy.exchanges.clear()
    manifest = S3Manifest.from_tar(uris, **where)
    read = [each.path.rpartition("/")[2] for each in proxy.of("GET") if each.path.endswith(".tar")]
    assert sorted(read) == ["3.tar", "4.tar"]  # what is small is read again, by one request as well
    assert len([each for each in proxy.of("GET") if each.path.endswith(".s3manifest")]) == 3
    assert manifest.fingerprint == S3Manifest.from_tar(uris, **options(s3_server)).fingerprint


def test_samples_larger_than_a_part_come_in_parts(s3_server: S3Server, bucket: str) -> None:
    files = {"0.bin": os.urandom(7 * 2**20 + 5), "0.txt": b"caption", "1.bin": os.urandom(5000)}
    fill(s3_server, bucket, {"a.tar": tar(files)})
    config = S3ClientConfig(part_size=5 * 2**20)
    manifest = S3Manifest.from_tar(f"s3://{bucket}/a.tar", s3client_config=config, **options(s3_server))
    for _ in range(2):
        first, second = S3StreamingDataset(manifest, shuffle=False)
        assert (first["bin"], first["txt"], second["bin"]) == tuple(files.values())


def ranges(server: S3Server, uri: str, places: list[tuple[int, int]], endpoint: str | None = None) -> S3Manifest:
    client = S3Client(server.region, endpoint=endpoint or server.endpoint)
    [row] = named(client, [uri])
    samples = [SampleRow("", [Part(row, None, *place)]) for place in places]
    return S3Manifest(build_samples(RANGES, samples), client)


def test_a_range_is_read_like_a_separate_file(s3_server: S3Server, bucket: str, proxy: RecordingProxy) -> None:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("a.txt", "hello")
    inner = memory.getvalue()
    fill(s3_server, bucket, {"x": b"before" + inner + b"after"})
    place = (6, 6 + len(inner))
    manifest = ranges(s3_server, f"s3://{bucket}/x", [place, (0, 6), (3, 3)], proxy.endpoint)
    proxy.exchanges.clear()
    file = S3MapDataset.from_manifest(manifest)[0]
    assert zipfile.ZipFile(file).read("a.txt") == b"hello"
    assert (file.seek(0, 2), file.read()) == (len(inner), b"")
    assert (file.seek(-4, 2), file.read(9)) == (len(inner) - 4, inner[-4:])
    copy = pickle.loads(pickle.dumps(file))
    assert (copy.tell(), copy.seek(2), copy.read(3), copy.peek()[:2]) == (len(inner), 2, inner[2:5], inner[5:7])
    buffer = bytearray(len(inner) + 9)
    assert (file.seek(0), file.readinto(buffer), bytes(buffer[: len(inner)])) == (0, len(inner), inner)
    for each in proxy.of("GET"):
        start, _, stop = (each.range or "")[6:].partition("-")
        assert place[0] <= int(start) <= int(stop) < place[1]
    samples = [reader.read() for reader in S3StreamingDataset(manifest, shuffle=False)]
    assert samples == [inner, b"before", b""]
    keys = S3StreamingDataset(manifest, shuffle=False, batch_size=3).keys_of(0)
    assert keys == [f"x[6:{place[1]}]", "x[0:6]", "x[3:3]"]


def test_workers_that_inherit_nothing_share_the_index(uri: str, s3_server: S3Server) -> None:
    manifest = S3Manifest.from_tar(uri, **options(s3_server))
    dataset = S3StreamingDataset(manifest, batch_size=2, transform=key_of)
    with loading(dataset, num_workers=1, multiprocessing_context="forkserver") as loader:
        assert sorted(key for batch in loader for key in batch) == [str(i) for i in range(8)]
