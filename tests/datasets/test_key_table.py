"""``KeyTable`` against the list it replaces."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector._key_table import KeyTable
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._types import ObjectInfo


def _item(bucket: str, key: str, size: int | None) -> S3BucketKeyData:
    return S3BucketKeyData(bucket, key, None if size is None else ObjectInfo(key, "", size, 0))


ITEMS = st.builds(
    _item,
    st.sampled_from(["a", "b", "another-bucket"]),
    st.text(st.characters(exclude_categories=())),  # lone surrogates among them
    st.none() | st.integers(0, 50 * 2**40),
)


@given(st.lists(ITEMS, max_size=30), st.integers(-40, 40))
def test_is_the_list(items: list[S3BucketKeyData], i: int) -> None:
    for table in (KeyTable(items), pickle.loads(pickle.dumps(KeyTable(iter(items))))):
        assert len(table) == len(items)
        assert list(table) == items
        if -len(items) <= i < len(items):
            assert table[i] == items[i]
        else:
            with pytest.raises(IndexError, match=f"index {i} is out of range for a dataset of {len(items)} objects"):
                table[i]


def test_pickles_compactly() -> None:
    count, key = 100_000, "folder/of/samples/{:07}.jpg"
    items = (_item("bucket", key.format(i), i) for i in range(count))
    assert len(pickle.dumps(KeyTable(items))) < count * (len(key.format(0)) + 20) + 1000


def test_more_buckets_than_two_bytes_can_number() -> None:
    count = (1 << 16) + 2
    table = KeyTable(S3BucketKeyData(f"bucket-{i}", "key") for i in range(count))
    assert [table[i].bucket for i in (0, 1, count - 1)] == ["bucket-0", "bucket-1", f"bucket-{count - 1}"]
