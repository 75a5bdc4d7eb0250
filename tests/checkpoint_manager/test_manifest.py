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
    manifest_of,
    parse_manifest,
    split_key,
    step_of,
)
from s3torchconnector._checkpoint_manager._retention import to_delete
from s3torchconnector._errors import S3FormatError

_steps = st.integers(0, LARGEST_STEP)
_counts = st.none() | st.integers(1, 6)


_in_order = st.lists(st.integers(0, 60), min_size=1, unique=True)


@given(_in_order, _counts, _counts, st.data())
def test_retention(steps: list[int], keep_last: int | None, keep_every: int | None, data: st.DataObject) -> None:
    saved = data.draw(st.sampled_from(steps))
    gone = to_delete(steps, keep_last, keep_every, saved)
    kept = set(steps) - set(gone)
    assert gone == [step for step in steps if step in gone]
    assert {saved, steps[-1]} <= kept
    if keep_last is None:
        assert kept == set(steps)
    else:
        newest = set(steps[-keep_last:])
        for_ever = {step for step in steps if keep_every is not None and step % keep_every == 0}
        assert kept == newest | for_ever | {saved}  # nothing else


@given(_in_order, st.integers(1, 6), _counts)
def test_retention_comes_to_rest(steps: list[int], keep_last: int, keep_every: int | None) -> None:
    gone = to_delete(steps, keep_last, keep_every, steps[-1])
    kept = [step for step in steps if step not in gone]
    assert to_delete(kept, keep_last, keep_every, kept[-1]) == []


@given(_steps, st.text(min_size=1))
def test_keys_are_split_into_step_and_name(step: int, name: str) -> None:
    assert split_key(folder_of(step) + name) == (step, name)


@pytest.mark.parametrize(
    "key", ["step-1/a", "step-00000000001/a", "step-0000000001", "step-0000000001/", "other/a", ""]
)
def test_other_keys_are_none_of_ours(key: str) -> None:
    assert split_key(key) is None


@given(_steps)
def test_the_name_of_a_manifest_has_its_step(step: int) -> None:
    assert step_of(manifest_of(step)) == step
    assert split_key(manifest_of(step)) is None


@pytest.mark.parametrize(
    "name",
    ["step-1.json", "step-00000000001.json", "step-0000000001", "a/step-0000000001.json", "step-0000000001.json~", ""],
)
def test_other_names_are_no_manifests(name: str) -> None:
    assert step_of(name) is None


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


@given(_steps, st.sampled_from(["torch", "dcp"]), st.integers(0), st.lists(_objects).map(tuple))
def test_a_manifest_is_read_as_it_was_written(
    step: int, format: Any, stored: int, objects: tuple[StoredObject, ...]
) -> None:
    manifest = Manifest(step, format, "folder/", stored, objects)
    assert parse_manifest(manifest.to_json(), step) == manifest


_GOOD: dict[str, Any] = {
    "version": 3,
    "step": 3,
    "format": "torch",
    "path": "a/",
    "stored": 1790000000,
    "objects": [{"key": "a/state.pt", "size": 1, "etag": "e", "checksum": None}],
}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"step": 4},
        {"format": "zip"},
        {"path": None},
        {"stored": None},
        {"stored": "1790000000"},
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
def test_an_object_that_is_not_a_manifest_is_refused(change: dict[str, Any]) -> None:
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
    assert differences(Manifest(0, "dcp", "a/", 0, objects), found) == [
        "a/2 has 9 bytes, not 10",
        "a/3 was overwritten: its ETag is f, not e",
        "a/4 is missing",
    ]
