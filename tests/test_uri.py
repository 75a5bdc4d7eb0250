"""S3 URIs: bucket and key unchanged, and errors that say what to write instead."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector import S3Checkpoint, S3IterableDataset, S3MapDataset
from s3torchconnector._uri import display_uri, is_arn, parse_object_uri, parse_s3_uri

_BUCKETS = st.text(st.characters(blacklist_characters="/"), min_size=1)


@given(_BUCKETS, st.text())
def test_bucket_and_key_round_trip_unchanged(bucket: str, key: str) -> None:
    assert parse_s3_uri(f"s3://{bucket}/{key}") == (bucket, key)
    if key:
        assert parse_object_uri(f"s3://{bucket}/{key}") == (bucket, key)


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/", ("bucket", "")),
        ("S3://bucket/key", ("bucket", "key")),
        ("s3://bucket//key", ("bucket", "/key")),
        ("s3://bucket/a/../b", ("bucket", "a/../b")),
        ("s3://bucket/a%20b?c#d", ("bucket", "a%20b?c#d")),
        ("s3://bucket/ key ", ("bucket", " key ")),
        ("s3://bucket/prefix/", ("bucket", "prefix/")),
        ("s3://bucket/äöü/日本", ("bucket", "äöü/日本")),
    ],
)
def test_forms(uri: str, parts: tuple[str, str]) -> None:
    assert parse_s3_uri(uri) == parts


_NAMES = st.text("abcxyz019-.", min_size=1)
_RESOURCES = st.one_of(
    st.tuples(st.just("arn:aws:s3:us-west-2:123456789012:accesspoint"), _NAMES),
    st.tuples(st.just("arn:aws-cn:s3-object-lambda:cn-north-1:123456789012:accesspoint"), _NAMES),
    st.tuples(st.just("arn:aws:s3::123456789012:accesspoint"), _NAMES.map(lambda name: f"{name}.mrap")),
    st.tuples(st.just("arn:aws:s3-outposts:us-west-2:123456789012:outpost"), _NAMES, st.just("accesspoint"), _NAMES),
)


@given(_RESOURCES, st.sampled_from(":/"), st.text())
def test_the_arn_of_an_access_point_is_a_bucket(resource: tuple[str, ...], separator: str, key: str) -> None:
    arn = ":".join(resource)
    assert parse_s3_uri(f"s3://{separator.join(resource)}/{key}") == (arn, key)
    assert parse_s3_uri(f"s3://{separator.join(resource)}") == (arn, "")
    assert parse_s3_uri(f"s3://{arn}/{key}") == (arn, key)  # what is returned can be joined with names again
    assert is_arn(arn)
    assert is_arn(separator.join(resource))


@pytest.mark.parametrize("bucket", [
    "arn:aws:s3:::my-bucket", "arn", "my-arn:aws:s3:us-west-2:1:accesspoint:a",
    "arn:aws:s3:us-west-2:1:accesspoint:a:b", "arn:aws:sqs:us-west-2:1:accesspoint:a",
])  # fmt: skip
def test_texts_that_are_not_arns_of_access_points(bucket: str) -> None:
    assert parse_s3_uri(f"s3://{bucket}/a/b") == (bucket, "a/b")
    assert not is_arn(bucket)


@pytest.mark.parametrize(
    "uri",
    ["", "bucket/key", "/bucket/key", "http://bucket/key", "s3:/bucket/key", "s3:bucket", " s3://b/k", "s3a://b/k"],
)
@pytest.mark.parametrize("parse", [parse_s3_uri, parse_object_uri])
def test_other_schemes(parse: Any, uri: str) -> None:
    with pytest.raises(ValueError, match=r"^Only s3:// URIs are supported.*write s3://bucket/key"):
        parse(uri)


@pytest.mark.parametrize("uri", ["s3://", "s3:///", "s3:///key"])
@pytest.mark.parametrize("parse", [parse_s3_uri, parse_object_uri])
def test_no_bucket(parse: Any, uri: str) -> None:
    with pytest.raises(ValueError, match=r"^Bucket name must be non-empty.*write s3://bucket/key"):
        parse(uri)


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/"])
def test_an_object_needs_a_key(uri: str) -> None:
    with pytest.raises(ValueError, match="names a bucket but no object: write s3://bucket/key"):
        parse_object_uri(uri)


@pytest.mark.parametrize("uri", [None, 7, b"s3://bucket/key", ["s3://bucket/key"]])
@pytest.mark.parametrize("parse", [parse_s3_uri, parse_object_uri])
def test_not_a_string(parse: Any, uri: Any) -> None:
    with pytest.raises(TypeError, match=f"an S3 URI is a string.*not {type(uri).__name__}"):
        parse(uri)


@given(_BUCKETS, st.text())
def test_a_displayed_uri_is_one_printable_line(bucket: str, key: str) -> None:
    text = display_uri(bucket, key)
    assert text.isprintable()
    if (bucket + key).isprintable():
        assert text == (f"s3://{bucket}/{key}" if key else f"s3://{bucket}")


@pytest.mark.parametrize("uri", ["https://bucket/key", "s3:///key", "s3://"])
def test_every_class_refuses_the_same_uris(uri: str) -> None:
    """None of them makes a request, so no region or endpoint needs to be right."""
    doors: list[Any] = [
        S3Checkpoint("us-east-1").reader,
        S3Checkpoint("us-east-1").writer,
        lambda text: S3MapDataset.from_prefix(text, region="us-east-1"),
        lambda text: S3IterableDataset.from_prefix(text, region="us-east-1"),
        lambda text: S3MapDataset.from_objects([text], region="us-east-1")[0],
        lambda text: list(S3IterableDataset.from_objects([text], region="us-east-1")),
    ]
    for door in doors:
        with pytest.raises(ValueError, match=r"^(Only s3:// URIs are supported|Bucket name must be non-empty)"):
            door(uri)
