"""MDS shards: each sample one range, decoded as MosaicML Streaming decodes it."""

from __future__ import annotations

import struct
import sys
from decimal import Decimal
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector import S3DataLoader, S3Manifest, S3StreamingDataset
from s3torchconnector._samples._mds import Column, SampleDecoder
from s3torchconnector.errors import S3FormatError, S3NotFoundError, S3ObjectChangedError
from s3torchconnector.testing import S3Server
from tests.servers.proxy import RecordingProxy
from tests.shards.mds import COLUMNS, described, encoded, index_of, shard_of
from tests.shards.support import fill, options, replace
from tests.streaming.support import loading


def values(number: int) -> list[bytes]:
    return [bytes([number]) * 9, struct.pack("<q", -number), f"tëxt {number}".encode(), struct.pack("<f", number / 2)]


def sample(number: int) -> dict[str, Any]:
    return {"image": bytes([number]) * 9, "label": -number, "text": f"tëxt {number}", "score": number / 2}


FIRST = shard_of([encoded(COLUMNS, values(i)) for i in range(3)])
SECOND = shard_of([encoded(COLUMNS, values(i)) for i in range(3, 7)])
INDEX = index_of(
    described("shard.00000.mds", FIRST, 3),
    described("more/shard.00000.mds", SECOND, 4),
    described("shard.00002.mds", shard_of([]), 0),
)
FILES = {
    "d/index.json": INDEX,
    "d/shard.00000.mds": FIRST,
    "d/more/shard.00000.mds": SECOND,
    "d/shard.00002.mds": shard_of([]),
    "d/others": b"",
}


@pytest.fixture
def uri(s3_server: S3Server, bucket: str) -> str:
    fill(s3_server, bucket, FILES)
    return f"s3://{bucket}/d"


def label(sample: dict[str, Any]) -> int:
    return -int(sample["label"])


def test_each_sample_is_one_request_for_its_bytes(uri: str, s3_server: S3Server, proxy: RecordingProxy) -> None:
    manifest = S3Manifest.from_mds(uri, **options(s3_server, proxy.endpoint))
    # The index, its folder, and the table of each shard that has samples.
    assert sorted(each.range or "" for each in proxy.of("GET") if not each.query) == [
        "bytes=0-19", "bytes=0-23", "bytes=0-8388607",
    ]  # fmt: skip
    assert not proxy.of("HEAD")
    manifest.save(f"{uri}.manifest")
    loaded = S3Manifest.load(f"{uri}.manifest", **options(s3_server, proxy.endpoint))
    proxy.exchanges.clear()
    found = list(S3StreamingDataset(loaded, shuffle=False))
    assert found == [sample(i) for i in range(7)]
    assert [type(value) for value in found[0].values()] == [bytes, int, str, numpy.float32]
    assert len(proxy.exchanges) == len({(each.path, each.range) for each in proxy.of("GET")}) == 7
    assert loaded.total_bytes == sum(len(encoded(COLUMNS, values(i))) for i in range(7))


def test_the_rest_works_as_with_other_samples(uri: str, s3_server: S3Server) -> None:
    manifest = S3Manifest.from_mds([f"{uri}/", f"{uri}/index.json"], **options(s3_server))
    assert len(manifest) == 14
    manifest = S3Manifest.from_mds(f"{uri}/index.json", **options(s3_server))
    keys = S3StreamingDataset(manifest, shuffle=False, batch_size=4).keys_of(0)
    assert keys == [*[f"d/shard.00000.mds/{i}" for i in range(3)], "d/more/shard.00000.mds/0"]
    some = manifest.filter(lambda info: info.key.endswith("/2"))
    assert [label(each) for each in S3StreamingDataset(some, shuffle=False)] == [2, 5]
    dataset = S3StreamingDataset(manifest, batch_size=2, transform=label)
    loader = S3DataLoader(dataset, collate_fn=list)
    seen = next(iter(loader))
    resumed = S3StreamingDataset(manifest, transform=label, batch_size=3)
    resumed.load_state_dict(loader.state_dict())
    with loading(resumed, num_workers=1, multiprocessing_context="forkserver") as loader:
        assert sorted([*seen, *(each for batch in loader for each in batch)]) == list(range(7))


def test_a_shard_that_was_overwritten_is_an_error(uri: str, s3_server: S3Server) -> None:
    manifest = S3Manifest.from_mds(uri, **options(s3_server))
    replace(s3_server, f"{uri}/shard.00000.mds", FIRST[:-1] + b"X")
    with pytest.raises(S3ObjectChangedError, match=r"shard\.00000\.mds"):
        next(iter(S3StreamingDataset(manifest, shuffle=False)))


def table(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers) + FIRST[4 * len(numbers) :]


@pytest.mark.parametrize(
    ("shard", "error"),
    [
        (table(4), "has 4 samples, but its index says 3"),
        (table(3, 19), "do not rise from 20"),
        (table(3, 60, 60), "do not rise"),
        (table(3, 90, 80), "do not rise"),
        (FIRST[:16] + struct.pack("<I", len(FIRST) + 1) + FIRST[20:], f"do not rise from 20 or more to {len(FIRST)}"),
        (b"\3\0\0\0", "has 4 bytes, too few for 3 samples"),
    ],
)
def test_a_wrong_table_is_an_error(s3_server: S3Server, bucket: str, shard: bytes, error: str) -> None:
    fill(s3_server, bucket, {"index.json": index_of(described("a.mds", shard, 3)), "a.mds": shard})
    with pytest.raises(S3FormatError, match=rf"^s3://{bucket}/a\.mds cannot be read as an MDS shard: .*{error}"):
        S3Manifest.from_mds(f"s3://{bucket}", **options(s3_server))


@pytest.mark.parametrize(
    ("index", "error"),
    [
        (b"{", "JSONDecodeError"),
        (b"[]", "TypeError"),
        (b"{}", "shards"),
        (index_of({}), "format"),
        (index_of(described("a.mds", FIRST, 3, format="json")), "json in version 2, and not MDS"),
        (index_of(described("a.mds", FIRST, 3, version=1)), "mds in version 1"),
        (
            index_of(described("a.mds", FIRST, 3, compression="zstd:7", zip_data={"basename": "a.mds.zstd"})),
            r"compressed \(zstd:7\), and cannot be read in place. Write them with compression=None",
        ),
        (index_of(described("a.mds", FIRST, 3, column_sizes=[8])), "zip"),
        (index_of(described("a.mds", FIRST, -1)), "-1 is no number"),
        (index_of(described("a.mds", FIRST, 3, column_encodings=["ndarray:what"] * 4)), "arrays of 'what'"),
    ],
)
def test_an_index_that_cannot_be_used_is_named(s3_server: S3Server, bucket: str, index: bytes, error: str) -> None:
    fill(s3_server, bucket, {"index.json": index, "a.mds": FIRST})
    whole = rf"^s3://{bucket}/index\.json cannot be used as an index of MDS shards: .*{error}"
    with pytest.raises(S3FormatError, match=whole):
        S3Manifest.from_mds(f"s3://{bucket}/", **options(s3_server))


def test_shards_that_are_missing_are_named(uri: str, s3_server: S3Server, bucket: str) -> None:
    replace(s3_server, f"{uri}/index.json", index_of(described("shard.00000.mds", FIRST + b"1", 3)))
    with pytest.raises(S3FormatError, match=rf"shard d/shard\.00000\.mds of {len(FIRST) + 1} bytes, and it has"):
        S3Manifest.from_mds(uri, **options(s3_server))
    replace(s3_server, f"{uri}/index.json", index_of(described("none.mds", FIRST, 3)))
    with pytest.raises(S3FormatError, match=r"names the shard d/none\.mds .* there is no such object"):
        S3Manifest.from_mds(uri, **options(s3_server))
    with pytest.raises(S3NotFoundError):
        S3Manifest.from_mds(f"s3://{bucket}/none", **options(s3_server))


def test_samples_that_cannot_be_decoded_are_replaced_if_errors_are(s3_server: S3Server, bucket: str) -> None:
    bad = [encoded(COLUMNS, values(i)) for i in range(3)]
    bad[1] = bad[1][:-1]
    shard = shard_of(bad)
    fill(s3_server, bucket, {"index.json": index_of(described("a.mds", shard, 3)), "a.mds": shard})
    manifest = S3Manifest.from_mds(f"s3://{bucket}/", **options(s3_server))
    samples = iter(S3StreamingDataset(manifest, shuffle=False, transform=label))
    assert next(samples) == 0
    with pytest.raises(S3FormatError, match=rf"^s3://{bucket}/a\.mds, sample 1: its values end at byte"):
        next(samples)
    assert next(samples) == 2
    dataset = S3StreamingDataset(manifest, transform=label, on_error="replace")
    assert set(dataset) == {0, 2}


def test_without_numpy_the_error_names_it(uri: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ImportError, match="MDS shards need NumPy"):
        S3Manifest.from_mds(uri, **options(s3_server))


@pytest.mark.parametrize(
    ("encoding", "stored", "value"),
    [
        ("bytes", b"\0\1", b"\0\1"),
        ("str", "é".encode(), "é"),
        ("int", struct.pack("<q", -(2**63)), -(2**63)),
        ("uint8", b"\xff", numpy.uint8(255)),
        ("int16", b"\xfe\xff", numpy.int16(-2)),
        ("uint64", b"\xff" * 8, numpy.uint64(2**64 - 1)),
        ("float16", b"\0\x3e", numpy.float16(1.5)),
        ("float64", struct.pack("<d", 0.1), numpy.float64(0.1)),
        ("str_int", b"123456789012345678901234567890", 123456789012345678901234567890),
        ("str_float", b"1e-3", 0.001),
        ("str_decimal", b"0.10", Decimal("0.10")),
        ("json", b'{"a": [1, null]}', {"a": [1, None]}),
        ("png", b"\x89PNG", b"\x89PNG"),
        ("jpeg:90", b"\xff\xd8", b"\xff\xd8"),
        ("pil", b"\1\0\0\0", b"\1\0\0\0"),
        ("pkl", b"\x80\4.", b"\x80\4."),
        ("of later releases", b"x", b"x"),
    ],
)
def test_values_are_decoded_as_documented(encoding: str, stored: bytes, value: Any) -> None:
    decode = SampleDecoder([Column("a", encoding, None)])
    [found] = decode(struct.pack("<I", len(stored)) + stored).values()
    assert (found, type(found)) == (value, type(value))


TYPES = {"uint8": 8, "int8": 9, "uint16": 16, "int16": 17, "float16": 18, "uint32": 32, "int32": 33, "float32": 34,
         "uint64": 64, "int64": 65, "float64": 66}  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(list(TYPES)),
    st.lists(st.sampled_from([1, 2, 3, 300]), min_size=1, max_size=2).filter(lambda shape: shape != [300, 300]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 3),
)
def test_arrays_say_what_their_column_does_not(
    kind: str, shape: list[int], typed: bool, shaped: bool, wider: int
) -> None:
    count = int(numpy.prod(shape))
    array = numpy.arange(count).astype(kind).reshape(shape)
    stored = b"" if typed else bytes([TYPES[kind]])
    if not shaped:
        width = max(wider, int(max(shape) > 255))
        stored += bytes([len(shape) << 2 | width]) + b"".join(each.to_bytes(1 << width, "little") for each in shape)
    stored += array.tobytes()
    encoding = f"ndarray:{kind}:{','.join(map(str, shape))}" if typed and shaped else f"ndarray:{kind}" if typed else ""
    if not typed and shaped:
        return  # no column is written so
    decode = SampleDecoder([Column("a", encoding or "ndarray", len(stored) if typed and shaped else None)])
    head = b"" if typed and shaped else struct.pack("<I", len(stored))
    found = decode(head + stored)["a"]
    assert (found.dtype, found.shape, found.flags.writeable) == (array.dtype, array.shape, True)
    assert numpy.array_equal(found, array)
    with pytest.raises((ValueError, IndexError, struct.error)):
        decode((head + stored)[:-1])
