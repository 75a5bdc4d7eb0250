"""Archives are read in place as the real ``webdataset`` reads them: the same samples, the same dicts."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3torchconnector import S3Client, S3DataLoader, S3Manifest, S3MapDataset, S3StreamingDataset
from s3torchconnector._samples._grouping import split_name
from s3torchconnector._samples._tar import entries_of
from s3torchconnector.errors import S3FormatError
from s3torchconnector.testing import S3Server
from tests.shards.support import Sample, by_webdataset, fill, options, tar

STEMS = st.sampled_from(["0", "1", "a/0", "a.b/0", "a/.0", "", ".x", "__meta__/1", "ü", "a/__meta__"])
SUFFIXES = st.sampled_from(["jpg", "JPG", "txt", "seg.png", "json", "", "__bad__", "a/b.c"])
NAMES = st.one_of(
    st.builds("{}.{}".format, STEMS, SUFFIXES),
    st.sampled_from(["__a.b__", "__x__", "none", "d/none", "x\n.jpg", "a/../b.jpg"]),
)
FILES = st.lists(st.tuples(NAMES, st.binary(max_size=700)), max_size=9)
ARCHIVES = st.lists(
    st.tuples(FILES, st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])),
    min_size=1,
    max_size=3,
)


def read_in_place(uris: Any, server: S3Server, **arguments: Any) -> list[Sample]:
    manifest = S3Manifest.from_tar(uris, **options(server), **arguments)
    return list(S3StreamingDataset(manifest, shuffle=False, batch_size=2))


def test_the_same_samples_as_webdataset(s3_server: S3Server, bucket: str) -> None:
    """One bucket, many archives in it: each example has its own names."""
    uri, examples = f"s3://{bucket}/", iter(range(10_000))
    client = S3Client(s3_server.region, endpoint=s3_server.endpoint)

    @settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
    @given(ARCHIVES)
    def check(contents: list[tuple[list[tuple[str, bytes]], int]]) -> None:
        number = next(examples)
        archives = {f"{number:05}-{i}.tar": tar(*each) for i, each in enumerate(contents)}
        for name, content in archives.items():
            with client.put_object(bucket, name) as writer:
                writer.write(content)
        uris = [uri + name for name in archives]
        try:
            expected = by_webdataset({uri + name: content for name, content in archives.items()})
        except ValueError:  # a duplicate file name
            with pytest.raises(S3FormatError, match="has two files"):
                S3Manifest.from_tar(uris, **options(s3_server))
        else:
            assert read_in_place(uris, s3_server) == expected

    check()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=200)
@given(st.one_of(NAMES, st.text("ab./_\n", max_size=12)))
def test_names_are_split_as_webdataset_splits_them(name: str) -> None:
    found = webdataset.tariterators.base_plus_ext(name)
    expected = None if found[0] is None else (found[0], found[1].lower())
    assert split_name(name) in ((None,) if webdataset.tariterators.re.match(r"__[^/]*__($|/)", name) else (expected,))


def written_by_webdataset(count: int) -> bytes:
    memory = io.BytesIO()
    with webdataset.TarWriter(memory) as writer:
        for i in range(count):
            sample = {
                "__key__": f"sample{i:04}",
                "txt": f"caption {i}",
                "cls": i,
                "json": {"n": i},
                "npy.bin": bytes(i),
            }
            writer.write(sample)
    return memory.getvalue()


def test_webdatasets_own_writer_and_decoders(s3_server: S3Server, bucket: str) -> None:
    archives = {"w-0.tar": written_by_webdataset(5), "w-1.tar": written_by_webdataset(4)}
    fill(s3_server, bucket, archives)
    uri = f"s3://{bucket}/"
    expected = by_webdataset({uri + name: content for name, content in archives.items()})
    assert read_in_place(uri, s3_server) == expected
    manifest = S3Manifest.from_tar(uri, **options(s3_server))
    decode = webdataset.autodecode.Decoder([webdataset.autodecode.basichandlers])
    decoded = list(S3StreamingDataset(manifest, shuffle=False, transform=decode))
    assert [(sample["txt"], sample["cls"], sample["json"]) for sample in decoded][:2] == [
        ("caption 0", 0, {"n": 0}),
        ("caption 1", 1, {"n": 1}),
    ]
    dataset = S3MapDataset.from_manifest(manifest, transform=decode)
    assert dataset[8]["json"] == {"n": 3}
    assert [sample["cls"] for sample in dataset.__getitems__([7, 0])] == [2, 0]


def test_braces_and_prefixes_name_archives(s3_server: S3Server, bucket: str) -> None:
    archives = {f"{kind}-{i:02}.tar": tar({f"{kind}{i}.txt": b"x"}) for kind in ("train", "val") for i in range(12)}
    fill(s3_server, bucket, {**archives, "train-00.txt": b"no archive"})
    uri = f"s3://{bucket}/"

    def keys(*uris: str) -> list[str]:
        return [sample["__key__"] for sample in read_in_place(uris, s3_server)]

    assert keys(uri + "train-{08..11}.tar") == ["train8", "train9", "train10", "train11"]
    assert keys(uri + "{val,train}-{00..01}.tar") == ["val0", "val1", "train0", "train1"]
    assert keys(uri + "val-0") == [f"val{i}" for i in range(10)]
    with pytest.raises(S3FormatError, match=r"no object below .*none"):
        keys(uri + "none")


def test_a_dataloader_of_shards_in_workers(s3_server: S3Server, bucket: str) -> None:
    fill(s3_server, bucket, {f"{i}.tar": written_by_webdataset(6) for i in range(3)})
    manifest = S3Manifest.from_tar(f"s3://{bucket}/", **options(s3_server))
    dataset = S3StreamingDataset(manifest, batch_size=4, transform=lambda sample: sample["__key__"])
    loader = S3DataLoader(dataset, num_workers=2, collate_fn=list, multiprocessing_context="fork")
    found = [key for batch in loader for key in batch]
    assert sorted(found) == sorted(f"sample{i:04}" for i in range(6) for _ in range(3))
    assert loader.stats()["bytes"] == manifest.total_bytes


def test_a_sample_is_one_range_of_its_members(s3_server: S3Server, bucket: str) -> None:
    content = tar({"0.jpg": b"j" * 1000, "0.txt": b"t" * 10, "1.jpg": b"k"})
    fill(s3_server, bucket, {"a.tar": content})
    manifest = S3Manifest.from_tar(f"s3://{bucket}/a.tar", **options(s3_server))
    first, second = entries_of(content, 0)[:2]
    item: Any = manifest[0]
    assert (item.start, item.stop, item.name) == (first.start, second.stop, "0")
    assert [member[:3] for member in item.members] == [("jpg", *first[1:3]), ("txt", *second[1:3])]
    assert manifest.total_bytes == 1011
