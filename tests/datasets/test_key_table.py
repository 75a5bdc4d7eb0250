"""``KeyTable`` against the list it replaces."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector._key_table import KeyTable
from s3torchconnector._listing_results import ObjectInfos
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._types import ObjectInfo, RestoreStatus

_KEYS = st.text(st.characters(exclude_categories=()))  # lone surrogates among them
_SUMS = st.text("0123456789abcdef", min_size=32, max_size=32)
_ETAGS = (
    _SUMS | st.builds("{}-{}".format, _SUMS, st.integers(0, 10_000)) | st.text("0123456789abcdefABCDEF-/ ", min_size=1)
)
_RESTORED = st.none() | st.builds(RestoreStatus, st.booleans(), st.none() | st.integers(0, 2**40))
_INFOS = st.builds(
    ObjectInfo,
    _KEYS,
    _ETAGS,
    st.integers(0, 50 * 2**40),
    st.integers(-(2**40), 2**40),
    st.sampled_from([None, "STANDARD", "GLACIER_IR"]),
    _RESTORED,
)
_QUOTED = _INFOS.map(lambda info: info._replace(etag=f'"{info.etag}"'))


def _items(infos: st.SearchStrategy[ObjectInfo]) -> st.SearchStrategy[list[S3BucketKeyData]]:
    """Objects, some of them listed, by a server that quotes all of its ETags or none."""
    buckets = st.sampled_from(["a", "b", "another-bucket"])
    listed = st.builds(lambda bucket, info: S3BucketKeyData(bucket, info.key, info), buckets, infos)
    named = st.tuples(buckets, _KEYS).map(lambda place: S3BucketKeyData(*place))
    return st.lists(listed | named, max_size=30)


@given(_items(_INFOS) | _items(_QUOTED), st.integers(-40, 40))
def test_is_the_list(items: list[S3BucketKeyData], i: int) -> None:
    for table in (KeyTable(items), pickle.loads(pickle.dumps(KeyTable(iter(items))))):
        assert len(table) == len(items)
        assert list(table) == items
        if -len(items) <= i < len(items):
            assert table[i] == items[i]
        else:
            with pytest.raises(IndexError, match=f"index {i} is out of range for a dataset of {len(items)} objects"):
                table[i]


@given(st.lists(st.lists(_QUOTED, max_size=9), max_size=4))
def test_pages_of_a_listing_are_the_list(pages: list[list[ObjectInfo]]) -> None:
    table = KeyTable.of_pages("bucket", map(ObjectInfos.of, pages))
    assert list(table) == [S3BucketKeyData("bucket", info.key, info) for page in pages for info in page]


@pytest.mark.parametrize(("listed", "limit"), [(False, 20), (True, 50)])
def test_pickles_compactly(listed: bool, limit: int) -> None:
    count, key = 100_000, "folder/of/samples/{:07}.jpg"
    infos = (ObjectInfo(key.format(i), f'"{i:032x}"', i, 1_700_000_000 + i, "STANDARD") for i in range(count))
    table = KeyTable(S3BucketKeyData("bucket", info.key, info if listed else None) for info in infos)
    assert len(pickle.dumps(table)) < count * (len(key.format(0)) + limit) + 1000


def test_more_buckets_than_two_bytes_can_number() -> None:
    count = (1 << 16) + 2
    table = KeyTable(S3BucketKeyData(f"bucket-{i}", "key") for i in range(count))
    assert [table[i].bucket for i in (0, 1, count - 1)] == ["bucket-0", "bucket-1", f"bucket-{count - 1}"]
