"""Several objects are one sample: which, what of it is missing, and in which version it is read."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector import S3Client, S3DataLoader, S3Manifest, S3MapDataset, S3StreamingDataset
from s3torchconnector._datasets._build import build
from s3torchconnector._datasets._rows import Row
from s3torchconnector._datasets._stems import Groups
from s3torchconnector._samples._grouping import split_name
from s3torchconnector.errors import S3ConfigurationError, S3FormatError, S3ObjectChangedError
from s3torchconnector.testing import S3Server
from tests.servers.proxy import RecordingProxy
from tests.shards.support import fill, options, tar

CONTENTS = {
    "p/0.jpg": b"image 0", "p/0.txt": b"text 0", "p/1.b/x.jpg": b"image x", "p/1.b/x.txt": b"text x",
    "p/1.a": b"a", "p/1.c": b"c", "p/2.jpg": b"image 2", "p/none": b"none",
}  # fmt: skip


@pytest.fixture
def uri(s3_server: S3Server, bucket: str) -> str:
    fill(s3_server, bucket, CONTENTS)
    return f"s3://{bucket}/p/"


def groups(keys: Iterable[str], **arguments: Any) -> list[tuple[str, list[str | None]]]:
    rows = build(Row("b", key, 1, '"x"') for key in keys)
    arguments = {"split": None, "required": (), "missing": "raise", **arguments}
    return [(sample.name, [part.suffix for part in sample.parts]) for sample in Groups(rows, **arguments)]


KEYS = st.lists(st.text("ab./", min_size=1, max_size=6), unique=True, max_size=12)


@settings(deadline=None, max_examples=150)
@given(KEYS)
def test_objects_of_one_stem_are_together_wherever_they_stand(keys: list[str]) -> None:
    expected: dict[str, list[str]] = {}
    for key in keys:
        parts = split_name(key)
        if parts is not None:
            expected.setdefault(parts[0], []).append(parts[1])
    assert groups(keys) == list(expected.items())


def test_names_of_equal_hash_are_still_different_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Groups, "_hashes", lambda self: array("q", [1, 2, 1, 1, 2]))
    assert groups(["a.x", "b.x", "c.x", "a.y", "b.y"]) == [("a", ["x", "y"]), ("c", ["x"]), ("b", ["x", "y"])]


def test_the_objects_of_a_sample_are_fetched_together(uri: str, s3_server: S3Server, proxy: RecordingProxy) -> None:
    manifest = S3Manifest.from_prefix(uri, **options(s3_server, proxy.endpoint)).group_by_stem()
    manifest.save(f"{uri[:-2]}manifest")
    proxy.exchanges.clear()
    samples = list(S3StreamingDataset(manifest, shuffle=False))
    assert [{name: sample[name] for name in sample if name != "__url__"} for sample in samples] == [
        {"__key__": "p/0", "jpg": b"image 0", "txt": b"text 0"},
        {"__key__": "p/1", "a": b"a", "c": b"c"},
        {"__key__": "p/1.b/x", "jpg": b"image x", "txt": b"text x"},
        {"__key__": "p/2", "jpg": b"image 2"},
    ]
    assert samples[0]["__url__"] == f"{uri}0.jpg"
    assert sorted(each.path.partition("/p/")[2] for each in proxy.exchanges) == sorted(
        key[2:] for key in CONTENTS if key != "p/none"
    )
    loaded = S3Manifest.load(f"{uri[:-2]}manifest", **options(s3_server))
    assert loaded.fingerprint == manifest.fingerprint
    assert [S3MapDataset.from_manifest(loaded)[i] for i in range(4)] == samples
    assert loaded.total_bytes == sum(map(len, CONTENTS.values())) - len(b"none")


def test_samples_that_lack_an_object_are_named_or_left_out(
    uri: str, s3_server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    objects = S3Manifest.from_prefix(uri, **options(s3_server))
    with pytest.raises(
        S3FormatError, match=r"2 samples are incomplete: p/1 has no jpg, txt; p/2 has no txt\. missing="
    ):
        objects.group_by_stem(required=("jpg", "txt"))
    with caplog.at_level(logging.WARNING):
        pairs = objects.group_by_stem(required=("jpg", "txt"), missing="drop")
    assert [sample["txt"] for sample in S3StreamingDataset(pairs, shuffle=False)] == [b"text 0", b"text x"]
    assert "2 samples are incomplete" in caplog.text
    assert len(objects.group_by_stem(required="jpg", missing="drop")) == 3
    with pytest.raises(ValueError, match="missing must be"):
        objects.group_by_stem(missing="skip")  # type: ignore[arg-type]
    with pytest.raises(S3ConfigurationError, match="groups objects"):
        pairs.group_by_stem()


def test_two_objects_of_one_name_are_an_error() -> None:
    with pytest.raises(S3FormatError, match=r"has two objects that would be 'jpg', one of them 'a\.JPG'"):
        groups(["a.jpg", "a.JPG"])


def test_a_rule_of_the_user_groups_folders(s3_server: S3Server, bucket: str) -> None:
    folders = ("images", "captions")
    fill(s3_server, bucket, {f"{folder}/{i}.x": f"{folder} {i}".encode() for folder in folders for i in range(3)})

    def split(key: str) -> tuple[str, str]:
        folder, _, name = key.partition("/")
        return name.partition(".")[0], folder

    manifest = S3Manifest.from_prefix(f"s3://{bucket}/", **options(s3_server)).group_by_stem(split=split)
    found = [
        (each["__key__"], each["images"], each["captions"]) for each in S3StreamingDataset(manifest, shuffle=False)
    ]
    assert found == [(str(i), f"images {i}".encode(), f"captions {i}".encode()) for i in range(3)]


def test_each_object_is_read_in_the_listed_version(uri: str, s3_server: S3Server) -> None:
    manifest = S3Manifest.from_prefix(uri, **options(s3_server)).group_by_stem()
    with S3Client(s3_server.region, endpoint=s3_server.endpoint).put_object(uri[5:-3], "p/0.txt") as writer:
        writer.write(b"text 9")
    samples = iter(S3StreamingDataset(manifest, shuffle=False))
    with pytest.raises(S3ObjectChangedError, match=r"p/0\.txt"):
        next(samples)
    assert next(samples)["__key__"] == "p/1"


def make(kind: str, server: S3Server, bucket: str) -> S3Manifest:
    """24 samples, as archives or as groups."""
    names = [f"{i:02}" for i in range(24)]
    if kind == "archives":
        files = [{f"{i}.txt": i.encode() * int(i), f"{i}.cls": b"1"} for i in names]
        fill(server, bucket, {f"s/{j}.tar": tar({k: v for f in files[j::3] for k, v in f.items()}) for j in range(3)})
        return S3Manifest.from_tar(f"s3://{bucket}/s/", **options(server))
    fill(server, bucket, {f"s/{i}.{name}": i.encode() for i in names for name in ("txt", "cls")})
    return S3Manifest.from_prefix(f"s3://{bucket}/s/", **options(server)).group_by_stem()


def key_of(sample: dict[str, Any]) -> str:
    return str(sample["__key__"]).rpartition("/")[2]


@pytest.mark.parametrize("kind", ["archives", "groups"])
def test_filters_splits_states_and_counters_know_samples(kind: str, s3_server: S3Server, bucket: str) -> None:
    manifest = make(kind, s3_server, bucket)
    assert len(manifest) == 24
    odd = manifest.filter(lambda info: int(info.key[-2:]) % 2 == 1)
    assert sorted(map(key_of, S3StreamingDataset(odd))) == [f"{i:02}" for i in range(1, 24, 2)]
    train, test = manifest.split(0.7, seed=3)
    assert (len(train) + len(test), train.total_bytes + test.total_bytes) == (24, manifest.total_bytes)
    assert len({manifest.fingerprint, train.fingerprint, test.fingerprint, odd.fingerprint}) == 4
    again = odd.split(0.7, seed=3)[0]
    in_train = set(map(key_of, S3StreamingDataset(train)))
    assert set(map(key_of, S3StreamingDataset(again))) == in_train & {f"{i:02}" for i in range(1, 24, 2)}

    state, seen = None, []
    for replicas, batch_size, steps in ((1, 2, 2), (3, 2, 1), (2, 1, 3), (1, 4, 9)):
        states = []
        for rank in range(replicas):
            dataset = S3StreamingDataset(
                manifest, transform=key_of, batch_size=batch_size, seed=5, num_replicas=replicas, rank=rank,
                balance="bytes",
            )  # fmt: skip
            loader = S3DataLoader(dataset, collate_fn=list)
            if state is not None:
                loader.load_state_dict(state)
            for _, batch in zip(range(steps), loader, strict=False):
                seen += batch
            states.append(loader.state_dict()["position"])
            last = loader.state_dict()
        assert len(set(states)) == 1
        state = last
    assert sorted(seen) == [f"{i:02}" for i in range(24)]
    dataset = S3StreamingDataset(manifest, transform=key_of, batch_size=4, seed=5)
    first = next(iter(S3DataLoader(dataset, collate_fn=list)))
    assert [name.rpartition("/")[2] for name in dataset.keys_of(0)] == first
