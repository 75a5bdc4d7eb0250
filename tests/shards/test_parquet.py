"""Row groups of Parquet files: one range each, decoded to what pyarrow reads of the whole file."""

from __future__ import annotations

import base64
import io
import itertools
import os
import sys
from typing import Any

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from pyarrow.parquet import encryption

from s3torchconnector import S3Cache, S3DataLoader, S3IterableDataset, S3Manifest, S3MapDataset, S3StreamingDataset
from s3torchconnector._dataset_source import DatasetSource, PinnedObjects
from s3torchconnector._samples import _parquet, _records
from s3torchconnector.errors import S3ConfigurationError, S3FormatError, S3NotFoundError, S3ObjectChangedError
from s3torchconnector.testing import S3Server
from tests.servers.http_messages import ReceivedRequest
from tests.servers.proxy import FlipByte, RecordingProxy
from tests.shards.support import fill, options, replace
from tests.streaming.support import loading

Table = Any


def written(table: Table, rows: int, **options: Any) -> bytes:
    file = io.BytesIO()
    parquet.write_table(table, file, row_group_size=rows, **options)
    return file.getvalue()


def numbers(first: int, count: int, size: int = 0) -> Table:
    """Rows that are numbered, each with as many random bytes."""
    return pyarrow.table({"n": range(first, first + count), "data": [os.urandom(size) for _ in range(count)]})


def expected(content: bytes, columns: list[str] | None = None) -> list[Table]:
    file = parquet.ParquetFile(io.BytesIO(content))
    tables = [file.read_row_group(i, columns=columns) for i in range(file.num_row_groups)]
    return [table for table in tables if table.num_rows]


@pytest.fixture(autouse=True)
def _no_footers() -> None:
    _records._begin_anew()


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """One row group; four, far from the end; none."""
    return {
        "a.parquet": written(numbers(0, 5), 5),
        "b.parquet": written(numbers(5, 8, 40_000), 2),
        "c.parquet": written(numbers(0, 0), 1),
    }


@pytest.fixture
def uri(s3_server: S3Server, bucket: str, contents: dict[str, bytes]) -> str:
    fill(s3_server, bucket, {**contents, "_SUCCESS": b""})
    return f"s3://{bucket}/"


def first_number(table: Table) -> int:
    return int(table["n"][0].as_py())


FIRST = [0, 5, 7, 9, 11]


def test_each_row_group_is_one_request_and_each_footer_one(
    uri: str, s3_server: S3Server, proxy: RecordingProxy, contents: dict[str, bytes]
) -> None:
    manifest = S3Manifest.from_parquet(uri, **options(s3_server, proxy.endpoint))
    assert len([each for each in proxy.of("GET") if each.range]) == 3
    assert len(manifest) == 5
    manifest.save(f"{uri}manifests/m")
    loaded = S3Manifest.load(f"{uri}manifests/m", **options(s3_server, proxy.endpoint))
    assert loaded.fingerprint == manifest.fingerprint
    for again in (False, True):
        before = len(proxy.exchanges)
        found = list(S3StreamingDataset(loaded, shuffle=False))
        assert found == [table for content in contents.values() for table in expected(content)]
        sent = proxy.exchanges[before:]
        assert {each.method for each in sent} == {"GET"}
        footers = [each for each in sent if (each.range or "").endswith(f"-{len(contents['b.parquet']) - 1}")]
        # Of the file with several row groups, the last comes with the footer, which the others need before.
        assert len(footers) == (1 if again else 2)
        assert len(sent) == 5 + len(footers) - 1
    items = list(manifest)
    assert [(item.key, item.name) for item in items] == [  # type: ignore[attr-defined]
        ("a.parquet", "0"), *[("b.parquet", str(i)) for i in range(4)]
    ]  # fmt: skip


def test_the_rest_works_as_with_other_samples(uri: str, s3_server: S3Server) -> None:
    manifest = S3Manifest.from_parquet(uri, **options(s3_server))
    dataset = S3StreamingDataset(manifest, shuffle=False, batch_size=3)
    assert dataset.keys_of(0) == ["a.parquet/0", "b.parquet/0", "b.parquet/1"]
    assert len(manifest.filter(lambda info: info.key.startswith("b.parquet/") and info.size > 80_000)) == 4
    parts = [S3StreamingDataset(part, transform=first_number) for part in manifest.split(0.5) if len(part)]
    assert sorted(number for part in parts for number in part) == FIRST
    by_index = S3MapDataset.from_manifest(manifest, transform=first_number)
    assert [by_index[i] for i in range(5)] == FIRST
    assert by_index.__getitems__([4, 0]) == [11, 0]
    assert list(S3IterableDataset.from_manifest(manifest, transform=first_number)) == FIRST
    for _ in range(2):
        shared = S3Manifest.shared(
            uri, at=f"{uri}manifests/n", make=S3Manifest.from_parquet, columns="n", **options(s3_server)
        )
        [first, *_] = S3StreamingDataset(shared, shuffle=False)
        assert first == pyarrow.table({"n": range(5)})
    loader = S3DataLoader(S3StreamingDataset(manifest, batch_size=2, transform=first_number), collate_fn=list)
    seen = next(iter(loader))
    state = loader.state_dict()
    rest: list[int] = []
    for rank in range(2):
        resumed = S3StreamingDataset(
            manifest, transform=first_number, num_replicas=2, rank=rank, even_batches=False, transform_threads=2
        )
        resumed.load_state_dict(state)
        rest += list(resumed)
    assert sorted(seen + rest) == FIRST


@pytest.mark.parametrize("context", ["fork", "forkserver"])
def test_workers_decode(uri: str, s3_server: S3Server, context: str) -> None:
    manifest = S3Manifest.from_parquet(uri, **options(s3_server))
    assert first_number(next(iter(S3StreamingDataset(manifest, shuffle=False)))) == 0  # in the parent, too
    dataset = S3StreamingDataset(manifest, batch_size=2, transform=first_number)
    with loading(dataset, num_workers=1, multiprocessing_context=context) as loader:
        assert sorted(number for batch in loader for number in batch) == FIRST


def test_only_the_columns_that_are_named_are_fetched(s3_server: S3Server, bucket: str, proxy: RecordingProxy) -> None:
    nested = pyarrow.array([[{"x": i, "y": str(i)}] for i in range(20)])
    table = numbers(0, 20, 30_000).append_column("s", nested).append_column("t", pyarrow.array(range(20)))
    content = written(table, 10)
    fill(s3_server, bucket, {"a.parquet": content})
    where = options(s3_server, proxy.endpoint)
    for columns in (["t", "s"], ["n"], ["n", "t"]):
        _records._begin_anew()
        manifest = S3Manifest.from_parquet(f"s3://{bucket}/a.parquet", columns=columns, **where)
        assert list(S3StreamingDataset(manifest, shuffle=False)) == expected(content, columns)
        first: Any = manifest[0]
        assert (first.sample_size > 300_000) == (columns == ["n", "t"])
    with pytest.raises(S3FormatError, match=r"a\.parquet cannot be read as Parquet: it has no column 'z'.* n, data, s"):
        S3Manifest.from_parquet(f"s3://{bucket}/", columns="z", **where)
    with pytest.raises(S3ConfigurationError, match="at least one column"):
        S3Manifest.from_parquet(f"s3://{bucket}/", columns=[], **where)


def test_long_footers_are_fetched_whole(s3_server: S3Server, bucket: str, proxy: RecordingProxy) -> None:
    table = pyarrow.table({f"column {i}": [i, os.urandom(9).hex() and i + 1] for i in range(700)})
    content = written(table, 1)
    length = _parquet.footer_size(content[-8:], len(content))
    assert length > 64 * 1024
    fill(s3_server, bucket, {"a.parquet": content})
    manifest = S3Manifest.from_parquet(f"s3://{bucket}/a.parquet", **options(s3_server, proxy.endpoint))
    assert len(proxy.of("GET")) == 2
    proxy.exchanges.clear()
    assert list(S3StreamingDataset(manifest, shuffle=False)) == expected(content)
    assert len(proxy.of("GET")) == 3


def file_of_other_files() -> bytes:
    metadata = parquet.read_metadata(io.BytesIO(written(numbers(0, 1), 1)))
    metadata.set_file_path("part-0.parquet")
    file = io.BytesIO()
    metadata.write_metadata_file(file)
    return file.getvalue()


class Keys(encryption.KmsClient):
    """Wraps keys so that anybody can unwrap them."""

    def __init__(self, _: Any) -> None:
        super().__init__()

    def wrap_key(self, key: bytes, name: str) -> bytes:
        return base64.b64encode(name.encode() + key)


def encrypted() -> bytes:
    """A file with one encrypted column, and a plain footer."""
    factory = encryption.CryptoFactory(Keys)
    chosen = encryption.EncryptionConfiguration("f", column_keys={"c": ["data"]}, plaintext_footer=True)
    file = io.BytesIO()
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), chosen)
    with parquet.ParquetWriter(file, numbers(0, 5).schema, encryption_properties=properties) as writer:
        writer.write_table(numbers(0, 5))
    return file.getvalue()


GOOD = written(numbers(0, 5), 5)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "not a Parquet file: it has 0 bytes"),
        (b"PAR1", "truncated or damaged"),
        (b"no such file" * 9, "not a Parquet file.*'file'"),
        (GOOD[:-1], "not a Parquet file"),
        (GOOD[-30:], "its footer would have"),
        (GOOD[:-1] + b"E", "its footer is encrypted"),
        (GOOD[:-400] + b"\xff" * 392 + GOOD[-8:], "its footer is damaged"),
        (encrypted(), "some of its columns are encrypted"),
        (file_of_other_files(), "its data is in other files, such as part-0"),
        (GOOD[:4] + GOOD[-_parquet.footer_size(GOOD, len(GOOD)) :], "the row group 0 has the bytes 4 to"),
    ],
)
def test_files_that_cannot_be_read_are_named(s3_server: S3Server, bucket: str, content: bytes, error: str) -> None:
    fill(s3_server, bucket, {"a.parquet": GOOD, "b.parquet": content})
    with pytest.raises(S3FormatError, match=error) as caught:
        S3Manifest.from_parquet(f"s3://{bucket}/{{a,b}}.parquet", **options(s3_server))
    assert str(caught.value).startswith(f"s3://{bucket}/b.parquet cannot be read as Parquet")


def test_files_that_are_not_there_are_errors(s3_server: S3Server, bucket: str) -> None:
    with pytest.raises(S3NotFoundError):
        S3Manifest.from_parquet(f"s3://{bucket}/none.parquet", **options(s3_server))
    with pytest.raises(S3FormatError, match=r"no object below .* ends with \.parquet"):
        S3Manifest.from_parquet(f"s3://{bucket}/none/", **options(s3_server))


def test_a_file_that_was_overwritten_is_an_error(s3_server: S3Server, bucket: str) -> None:
    fill(s3_server, bucket, {"a.parquet": GOOD})
    manifest = S3Manifest.from_parquet(f"s3://{bucket}/a.parquet", **options(s3_server))
    replace(s3_server, f"s3://{bucket}/a.parquet", written(numbers(1, 5), 5))
    with pytest.raises(S3ObjectChangedError, match=r"a\.parquet"):
        next(iter(S3StreamingDataset(manifest)))


def test_bytes_that_cannot_be_decoded_are_errors_of_content(s3_server: S3Server, bucket: str) -> None:
    content = written(numbers(0, 4, 40_000), 2)
    damaged = content[:4] + bytes(50) + content[54:]
    fill(s3_server, bucket, {"a.parquet": damaged})
    manifest = S3Manifest.from_parquet(f"s3://{bucket}/a.parquet", **options(s3_server))
    samples = iter(S3StreamingDataset(manifest, shuffle=False, transform=first_number))
    with pytest.raises(S3FormatError, match=rf"s3://{bucket}/a\.parquet, row group 0: it cannot be decoded"):
        next(samples)
    assert next(samples) == 2
    replaced = S3StreamingDataset(manifest, transform=first_number, on_error="replace")
    assert list(replaced) == [2, 2]


@pytest.mark.parametrize("always", [False, True])
def test_bytes_changed_on_the_way_are_fetched_again(
    s3_server: S3Server, bucket: str, proxy: RecordingProxy, always: bool
) -> None:
    content = written(numbers(0, 4, 40_000), 2, write_page_checksum=True, compression="none")
    fill(s3_server, bucket, {"a.parquet": content})
    manifest = S3Manifest.from_parquet(f"s3://{bucket}/a.parquet", **options(s3_server, proxy.endpoint))
    item: Any = manifest[0]
    place = item.sample_size - 1000
    of_first = f"bytes={item.start}-"
    count = itertools.count()

    def misbehave(request: ReceivedRequest) -> FlipByte | None:
        return FlipByte(place) if of_first in (request.range or "") and (always or next(count) == 0) else None

    proxy.misbehave = misbehave
    proxy.exchanges.clear()
    samples = iter(S3StreamingDataset(manifest, shuffle=False))
    if always:
        with pytest.raises(S3FormatError, match=r"a\.parquet, row group 0: .*(?i:crc).* came twice the same"):
            next(samples)
    else:
        assert next(samples) == expected(content)[0]
    assert next(samples) == expected(content)[1]
    # Two row groups, and a footer; the first one with its footer again.
    assert len(proxy.of("GET")) == 5


def test_a_cache_keeps_row_groups(uri: str, s3_server: S3Server, proxy: RecordingProxy, tmp_path: Any) -> None:
    manifest = S3Manifest.from_parquet(uri, **options(s3_server, proxy.endpoint))
    cache = S3Cache(str(tmp_path / "cache"), max_bytes=400 * 2**20)
    dataset = S3StreamingDataset(manifest, shuffle=False, cache=cache, transform=first_number)
    assert list(dataset) == FIRST
    _records._begin_anew()
    before = len(proxy.exchanges)
    assert list(dataset) == FIRST
    assert len(proxy.exchanges) == before


def test_footers_are_kept_within_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_records, "_FOOTERS", 100)
    footers = _records._Footers()
    assert footers.claim(("b", "0", ""))
    assert not footers.claim(("b", "0", ""))
    for i in range(4):
        footers.keep(("b", str(i), ""), i + 1, 30)
        footers.get(("b", "0", ""))
    assert [footers.get(("b", str(i), "")) for i in range(4)] == [1, None, 3, 4]
    footers.keep(("b", "4", ""), 5, 1000)
    assert [footers.get(("b", str(i), "")) for i in range(5)] == [None, None, None, None, 5]
    assert footers.claim(("b", "0", ""))
    footers.release(("b", "0", ""))
    assert footers.claim(("b", "0", ""))


def test_without_pyarrow_the_error_names_the_extra(
    s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ImportError, match=r"Parquet files need pyarrow: from the checkout, pip install '\.\[parquet\]'"
    ):
        S3Manifest.from_parquet(f"s3://{bucket}/", **options(s3_server))


def test_a_footer_whose_fetch_ended_may_be_fetched(uri: str, s3_server: S3Server) -> None:
    manifest = S3Manifest.from_parquet(uri, **options(s3_server))
    source = DatasetSource(s3_server.region, PinnedObjects(manifest), endpoint=s3_server.endpoint)
    first, second = (source.open_early(manifest[i]) for i in (1, 2))
    for _ in range(2):
        assert first._start_early(None)
        assert len(_records._footers._claimed) == 1
        second._start_early(None)
        assert second._tail is None
        first.close()
        assert not _records._footers._claimed
        first = source.open_early(manifest[1])


def groups_of(content: bytes) -> list[_parquet.RowGroup]:
    length = _parquet.footer_size(content, len(content))
    metadata = _parquet.metadata_of(content[-length:])
    return list(_parquet.row_groups(metadata, None, len(content) - length))


VALUES = st.one_of(
    st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=12),
    st.lists(st.one_of(st.none(), st.sampled_from(["", "a", "longer text"])), min_size=1, max_size=12),
    st.lists(st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=3), min_size=1, max_size=12),
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(VALUES, min_size=1, max_size=3),
    st.integers(1, 5),
    st.sampled_from(["none", "snappy", "zstd"]),
    st.booleans(),
    st.sampled_from(["1.0", "2.0"]),
    st.booleans(),
    st.data(),
)
def test_any_row_group_is_decoded_of_its_bytes_alone(
    values: list[list[Any]], rows: int, compression: str, dictionary: bool, pages: str, old: bool, data: Any
) -> None:
    count = min(map(len, values))
    table = pyarrow.table({f"c.{i}" if i else "c0": pyarrow.array(each[:count]) for i, each in enumerate(values)})
    content = written(table, rows, compression=compression, use_dictionary=dictionary, data_page_version=pages)
    ends: list[int] = []
    if old:  # the name of a writer that forgets some bytes
        ends = [group.stop for group in groups_of(content)]
        name = parquet.read_metadata(io.BytesIO(content)).created_by.encode()
        content = content.replace(name, b"parquet-mr version 1.2.0".ljust(len(name)))
    length = _parquet.footer_size(content, len(content))
    metadata = _parquet.metadata_of(content[-length:])
    if old:
        limit = len(content) - length
        assert [group.stop for group in groups_of(content)] == [min(end + 100, limit) for end in ends]
    columns = data.draw(st.none() | st.just([table.column_names[-1]]))
    found = [
        _parquet.table_of(metadata, number, columns, content[start:stop], start)
        for number, start, stop in _parquet.row_groups(metadata, columns, len(content) - length)
    ]
    assert found == expected(content, columns)
