"""Names, manifests and retention: pure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector._checkpoint_manager._manifest import (
    LARGEST_STEP,
    Manifest,
    StoredObject,
    differences,
    folder_of,
    parse_manifest,
    split_key,
)
from s3torchconnector._checkpoint_manager._retention import to_delete
from s3torchconnector._errors import S3FormatError

_steps = st.integers(0, LARGEST_STEP)
_counts = st.none() | st.integers(1, 6)


@given(st.sets(st.integers(0, 60)), _counts, _counts, st.integers(0, 60))
def test_retention(steps: set[int], keep_last: int | None, keep_every: int | None, saved: int) -> None:
    steps |= {saved}
    gone = to_delete(steps, keep_last, keep_every, saved)
    kept = steps - set(gone)
    assert gone == sorted(set(gone))
    assert set(gone) <= steps
    assert {saved, max(steps)} <= kept
    if keep_last is None:
        assert kept == steps
    else:
        newest = set(sorted(steps)[-keep_last:])
        for_ever = {step for step in steps if keep_every is not None and step % keep_every == 0}
        assert kept == newest | for_ever | {saved}  # nothing else


@given(st.sets(st.integers(0, 60), min_size=1), st.integers(1, 6), _counts)
def test_retention_comes_to_rest(steps: set[int], keep_last: int, keep_every: int | None) -> None:
    kept = steps - set(to_delete(steps, keep_last, keep_every, max(steps)))
    assert to_delete(kept, keep_last, keep_every, max(kept)) == []


@given(_steps, st.text(min_size=1))
def test_keys_are_split_where_they_were_joined(step: int, name: str) -> None:
    assert split_key(folder_of(step) + name) == (step, name)


@pytest.mark.parametrize(
    "key", ["step-1/a", "step-00000000001/a", "step-0000000001", "step-0000000001/", "other/a", ""]
)
def test_other_keys_are_none_of_ours(key: str) -> None:
    assert split_key(key) is None


def test_folders_sort_like_steps() -> None:
    assert folder_of(7) == "step-0000000007/"
    assert folder_of(99) < folder_of(100) < folder_of(LARGEST_STEP)


_objects = st.builds(
    lambda name, size, etag, checksum: StoredObject(f"folder/{name}", size, etag, checksum),
    st.text(),
    st.integers(0, 2**60),
    st.text(),
    st.none() | st.text(),
)


@given(_steps, st.sampled_from(["torch", "dcp"]), st.lists(_objects).map(tuple))
def test_a_manifest_is_read_as_it_was_written(step: int, format: Any, objects: tuple[StoredObject, ...]) -> None:
    manifest = Manifest(step, format, "folder/", objects)
    assert parse_manifest(manifest.to_json(), step) == manifest


_GOOD: dict[str, Any] = {
    "version": 2,
    "step": 3,
    "format": "torch",
    "path": "a/",
    "objects": [{"key": "a/state.pt", "size": 1, "etag": "e", "checksum": None}],
}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"step": 4},
        {"format": "zip"},
        {"path": None},
        {"objects": None},
        {"objects": [{"key": "a/state.pt"}]},
        {"objects": [{**_GOOD["objects"][0], "size": "1"}]},
        {"objects": [{**_GOOD["objects"][0], "size": True}]},
        {"objects": [{**_GOOD["objects"][0], "checksum": 1}]},
        {"objects": [{**_GOOD["objects"][0], "key": "b/state.pt"}]},
        {"objects": [{**_GOOD["objects"][0], "more": 1}]},
    ],
    ids=str,
)
def test_what_is_no_manifest_is_refused(change: dict[str, Any]) -> None:
    assert parse_manifest(json.dumps(_GOOD).encode(), 3).step == 3
    with pytest.raises(S3FormatError):
        parse_manifest(json.dumps({**_GOOD, **change}).encode(), 3)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b"[" * 10_000])
def test_bytes_that_are_no_manifest_are_refused(data: bytes) -> None:
    with pytest.raises(S3FormatError):
        parse_manifest(data, 3)


def test_every_difference_is_named() -> None:
    objects = tuple(StoredObject(f"a/{name}", 10, "e", None) for name in "1234")
    found = [
        StoredObject("a/1", 10, "e", None),
        StoredObject("a/2", 9, "e", None),
        StoredObject("a/3", 10, "f", None),
        StoredObject("a/5", 10, "e", None),
    ]
    assert differences(Manifest(0, "dcp", "a/", objects), found) == [
        "a/2 has 9 bytes, not 10",
        "a/3 was overwritten: its ETag is f, not e",
        "a/4 is missing",
    ]
