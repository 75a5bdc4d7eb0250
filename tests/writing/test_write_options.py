"""``S3WriteOptions``: which are refused, how they are combined, and that every writer sends them."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from base64 import b64decode
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import boto3
import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector import S3Checkpoint, S3CheckpointManager, S3Client, S3ClientConfig, S3Manifest, S3WriteOptions
from s3torchconnector._errors import S3AccessDeniedError, S3ConfigurationError, S3ObjectExistsError
from s3torchconnector._write_options import MARK, MARK_SIZE
from s3torchconnector.dcp import S3StorageWriter
from s3torchconnector.dcp.s3_file_system import S3FileSystem
from s3torchconnector.lightning import S3LightningCheckpoint
from tests.servers.http_messages import ReceivedRequest
from tests.servers.moto_server import MotoServer
from tests.servers.scripted import Reply
from tests.servers.stand_ins import AwsLike, Demanding
from tests.writing.support import PART, noise

KMS = {"encryption": "aws:kms", "kms_key_id": "arn:aws:kms:us-east-1:111122223333:key/1", "bucket_key": True}
ALL: dict[str, Any] = {
    **KMS,
    "kms_context": {"team": "vision"},
    "acl": "bucket-owner-full-control",
    "storage_class": "STANDARD_IA",
    "content_type": "application/x-tensors",
    "tags": {"team": "vision / language", "cost/center": "a=b+c"},
    "metadata": {"Run": "run 7", "git": "0a1b"},
}
DEMANDS = {
    "x-amz-server-side-encryption": "aws:kms",
    "x-amz-server-side-encryption-aws-kms-key-id": KMS["kms_key_id"],
    "x-amz-server-side-encryption-bucket-key-enabled": "true",
    "x-amz-acl": "bucket-owner-full-control",
    "x-amz-storage-class": "STANDARD_IA",
}
MOST = 2048 - len(MARK) - MARK_SIZE


def config_of(**options: Any) -> S3ClientConfig:
    return S3ClientConfig(part_size=PART, max_attempts=3, write_options=S3WriteOptions(**options))


# -- the value ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"encryption": "aes256"}, "encryption must be one of AES256, aws:kms, aws:kms:dsse"),
        ({"encryption": 1}, "encryption must be printable ASCII"),
        ({"kms_key_id": "k"}, "kms_key_id needs encryption='aws:kms', but encryption=None"),
        ({"kms_context": {}, "encryption": "AES256"}, "kms_context needs encryption='aws:kms'"),
        ({"bucket_key": False}, "bucket_key needs encryption"),
        ({"bucket_key": 1, "encryption": "aws:kms"}, "bucket_key must be True, False or None"),
        ({"bucket_key": True, "encryption": "aws:kms:dsse"}, "bucket_key is not possible with"),
        ({"kms_key_id": "k\r\nx: y", "encryption": "aws:kms"}, "kms_key_id must be printable ASCII"),
        ({"acl": "bucket_owner_full_control"}, "acl must be a canned ACL such as 'bucket-owner-full-control'"),
        ({"storage_class": ""}, "storage_class must be printable ASCII"),
        ({"content_type": "text"}, "content_type must be a media type"),
        ({"tags": {str(number): "" for number in range(11)}}, "tags are at most 10, but there are 11"),
        ({"tags": {"": "v"}}, "tags have names of 1 to 128 characters"),
        ({"tags": {"n" * 129: "v"}}, "tags have names of 1 to 128 characters"),
        ({"tags": {"n": "v" * 257}}, "tags have names of 1 to 128 characters, and values at most 256"),
        ({"tags": {"AWS:n": "v"}}, "tags must not begin with 'aws:'"),
        ({"tags": {"n": "a&b"}}, "tags have letters, numbers, blanks and _.:/=+-@ alone: '&' in 'n'"),
        ({"tags": "a=b"}, "tags must be a mapping"),
        ({"tags": {"n": 1}}, "tags must be a mapping from strings to strings"),
        ({"metadata": [("a", "1"), ("a", "2")]}, "metadata has a name twice"),
        ({"metadata": {"a b": "v"}}, "metadata has names that can be those of headers"),
        ({"metadata": {"a": "ü"}}, "metadata has values of printable ASCII"),
        ({"metadata": {"a": " v"}}, "metadata has values of printable ASCII, with single blanks"),
        ({"metadata": {"a": "1\r\nx-amz-acl: public-read"}}, "metadata has values of printable ASCII"),
        ({"metadata": {"a": "1", "A": "2"}}, "metadata has two names that differ only in upper and lower case"),
        ({"metadata": {"x-amz-meta-a": "1"}}, "metadata is named without 'x-amz-meta-'"),
        ({"metadata": {MARK: "1"}}, "metadata must not have the name"),
        (
            {"metadata": {"a": "v" * MOST}},
            "metadata has at most 1,994 bytes of names and values together, but it has 1,995",
        ),
    ],
)
def test_what_s3_would_refuse_is_refused_when_it_is_made(options: dict[str, Any], text: str) -> None:
    with pytest.raises(S3ConfigurationError) as caught:
        S3WriteOptions(**options)
    assert str(caught.value).startswith(f"invalid write options: {text}")


def test_the_largest_options_are_taken() -> None:
    S3WriteOptions(tags={f"{number:0>128}": "v" * 256 for number in range(10)}, metadata={"a": "v" * (MOST - 1)})
    for encryption in ("AES256", "aws:kms", "aws:kms:dsse"):
        S3WriteOptions(encryption=encryption)


def test_options_are_a_value() -> None:
    options = S3WriteOptions(**ALL)
    same = S3WriteOptions(**{**ALL, "tags": dict(reversed(ALL["tags"].items()))})
    assert options == same
    assert hash(options) == hash(same)
    assert pickle.loads(pickle.dumps(options)) == copy.deepcopy(options) == dataclasses.replace(options) == options
    assert "vision / language" in repr(options)
    assert "kms_context" not in repr(options)


texts = st.none() | st.sampled_from(["a", "b"])
some_options = st.builds(
    S3WriteOptions,
    encryption=st.none() | st.sampled_from(["AES256", "aws:kms"]),
    acl=texts,
    storage_class=texts,
    tags=st.none() | st.dictionaries(st.sampled_from("ab"), st.sampled_from("ab")),
)


@given(some_options, some_options, some_options)
def test_what_a_write_leaves_out_is_the_clients(a: S3WriteOptions, b: S3WriteOptions, c: S3WriteOptions) -> None:
    assert a._over(b)._over(c) == a._over(b._over(c))
    assert a._over(S3WriteOptions()) == S3WriteOptions()._over(a) == a
    for field in dataclasses.fields(a):
        mine, theirs = getattr(a, field.name), getattr(b, field.name)
        assert getattr(a._over(b), field.name) == (theirs if mine is None else mine)


def test_encryption_is_taken_as_a_whole() -> None:
    of_client = S3WriteOptions(**KMS)
    assert S3WriteOptions(acl="private")._over(of_client).kms_key_id == KMS["kms_key_id"]
    assert S3WriteOptions(encryption="AES256")._over(of_client) == S3WriteOptions(encryption="AES256")
    other = S3WriteOptions(encryption="aws:kms", kms_key_id="other")
    assert other._over(of_client) == other


tag_texts = st.text(st.sampled_from("aé語 1_.:/=+-@"), max_size=9)


@given(st.dictionaries(tag_texts.map(lambda text: f"t{text}"), tag_texts, max_size=10))
def test_tags_round_trip_through_their_header(tags: dict[str, str]) -> None:
    header = S3WriteOptions(tags=tags)._headers().get("x-amz-tagging", "")
    assert header.isascii()
    assert dict(parse_qsl(header, keep_blank_values=True, errors="strict")) == tags


# -- what is stored ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, PART + 1])
@pytest.mark.parametrize("overwrite", [True, False])
def test_an_object_has_its_options(moto_server: MotoServer, moto_bucket: str, size: int, overwrite: bool) -> None:
    client = S3Client("us-east-1", endpoint=moto_server.endpoint, s3client_config=config_of(**KMS, tags={"a": "b"}))
    options = S3WriteOptions(
        **{name: value for name, value in ALL.items() if name not in KMS and name != "kms_context"}
    )
    with client, client.put_object(moto_bucket, "key", overwrite=overwrite, options=options) as writer:
        writer.write(noise(size))
    assert_has_options(moto_server, moto_bucket, "key", size=size)


@pytest.mark.parametrize("options", [None, S3WriteOptions(tags={"copied": "yes"}, content_type="text/plain")])
def test_a_copy_keeps_metadata_and_gets_the_other_options_again(
    moto_server: MotoServer, moto_bucket: str, options: S3WriteOptions | None
) -> None:
    client = S3Client("us-east-1", endpoint=moto_server.endpoint, s3client_config=config_of(**ALL))
    with client, client.put_object(moto_bucket, "old") as writer:
        writer.write(b"data")
    demands = {name: value for name, value in ALL.items() if name not in ("tags", "metadata", "content_type")}
    with S3Client("us-east-1", endpoint=moto_server.endpoint, s3client_config=config_of(**demands)) as client:
        client.copy_object(moto_bucket, "old", moto_bucket, "key", options=options)
    tags, kind = ({"copied": "yes"}, "text/plain") if options else (ALL["tags"], ALL["content_type"])
    assert_has_options(moto_server, moto_bucket, "key", tags=tags, kind=kind)


def assert_has_options(
    server: MotoServer, bucket: str, key: str, tags: Any = ALL["tags"], size: int = 0, kind: str = ALL["content_type"]
) -> None:
    s3 = boto3.client("s3", endpoint_url=server.endpoint, region_name="us-east-1")
    head = s3.head_object(Bucket=bucket, Key=key)
    assert head["ServerSideEncryption"] == "aws:kms"
    assert head["SSEKMSKeyId"] == KMS["kms_key_id"]
    assert head.get("BucketKeyEnabled", size > PART) is True  # moto does not keep it of multipart uploads
    assert head["StorageClass"] == "STANDARD_IA"
    assert head["ContentType"] == kind
    assert {name: value for name, value in head["Metadata"].items() if name != MARK} == {"run": "run 7", "git": "0a1b"}
    found = s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
    assert {each["Key"]: each["Value"] for each in found} == tags
    grants = s3.get_object_acl(Bucket=bucket, Key=key)["Grants"]
    assert "FULL_CONTROL" in {each["Permission"] for each in grants}
    s3.close()


def test_the_context_of_kms_is_json_in_base64() -> None:
    header = S3WriteOptions(**ALL)._headers()["x-amz-server-side-encryption-context"]
    assert json.loads(b64decode(header)) == {"team": "vision"}


# -- every writer ------------------------------------------------------------------------------------------------------

STATE = {"large": torch.arange(800_000), "small": torch.ones(7)}


def save_by_checkpoint(endpoint: str, config: S3ClientConfig) -> None:
    checkpoint = S3Checkpoint("us-east-1", endpoint, config)
    for name, data in (("small", b"data"), ("large", noise(PART + 1))):
        with checkpoint.writer(f"s3://bucket/{name}") as writer:
            writer.write(data)


def save_safetensors(endpoint: str, config: S3ClientConfig) -> None:
    S3Checkpoint("us-east-1", endpoint, config).save_safetensors(STATE, "s3://bucket/model.safetensors")


def save_distributed(endpoint: str, config: S3ClientConfig) -> None:
    for overwrite in (True, True):
        writer = S3StorageWriter("us-east-1", "s3://bucket/run", config, endpoint=endpoint, overwrite=overwrite)
        dcp.save(STATE, storage_writer=writer)
    dcp.save(
        STATE,
        storage_writer=S3StorageWriter("us-east-1", "s3://bucket/new", config, endpoint=endpoint, overwrite=False),
    )


def save_by_manager(endpoint: str, config: S3ClientConfig) -> None:
    manager = S3CheckpointManager(
        "s3://bucket/run", "us-east-1", endpoint=endpoint, s3client_config=config, keep_last=1
    )
    manager.save(1, STATE)
    manager.save(1, STATE)
    manager.save_async(2, STATE).result()
    manager.close()


def save_by_lightning(endpoint: str, config: S3ClientConfig) -> None:
    plugin = S3LightningCheckpoint("us-east-1", endpoint=endpoint, s3client_config=config)
    plugin.save_checkpoint(STATE, "s3://bucket/epoch=1.ckpt")
    plugin.teardown()


def rename(endpoint: str, config: S3ClientConfig) -> None:
    files = S3FileSystem("us-east-1", s3client_config=config, endpoint=endpoint)
    with files.create_stream("s3://bucket/a", "wb") as stream:
        stream.write(b"data")
    files.rename("s3://bucket/a", "s3://bucket/b")


def save_manifest(endpoint: str, config: S3ClientConfig) -> None:
    save_by_checkpoint(endpoint, config)
    manifest = S3Manifest.from_prefix("s3://bucket/", region="us-east-1", endpoint=endpoint, s3client_config=config)
    manifest.save("s3://bucket/manifest")


SAVES: list[Callable[[str, S3ClientConfig], None]] = [
    save_by_checkpoint,
    save_safetensors,
    save_distributed,
    save_by_manager,
    save_by_lightning,
    rename,
    save_manifest,
]


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.usefixtures("s3_server")  # for its keys
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_every_request_that_stores_an_object_carries_the_options(save: Callable[[str, S3ClientConfig], None]) -> None:
    counts = []
    for demands, config in ((DEMANDS, config_of(**ALL)), ({}, config_of())):
        memory = Demanding(demands)
        with memory.serve() as server:
            save(server.endpoint, config)
        counts.append(sorted(f"{each.method} {sorted(each.query)}" for each in memory.requests))
    assert counts[0] == counts[1]


@pytest.mark.usefixtures("s3_server")
@pytest.mark.parametrize("size", [10, PART + 1])
def test_a_refused_write_says_what_a_policy_may_demand(size: int) -> None:
    memory = Demanding(DEMANDS)
    with memory.serve() as server:
        client = S3Client(
            "us-east-1", endpoint=server.endpoint, s3client_config=config_of(acl="private", tags={"a": "b"})
        )
        with pytest.raises(S3AccessDeniedError) as caught, client, client.put_object("bucket", "key") as writer:
            writer.write(noise(size))
    assert (
        "These credentials need s3:PutObject, s3:PutObjectAcl, s3:PutObjectTagging. If they have that, a policy of the "
        "bucket may demand options that this request lacks (encryption, storage_class), or other values of those it "
        "carries (acl, tags): set write_options in S3ClientConfig; or customer_key, for SSE-C." in str(caught.value)
    )
    assert memory.objects == memory.uploads == {}


# -- the mark ----------------------------------------------------------------------------------------------------------


class Losing(AwsLike):
    """Loses the response to the first request that makes an object appear; limits metadata as S3 does."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0

    def serve_and_lose(self, request: ReceivedRequest) -> Reply:
        metadata = [item for item in request.headers.items() if item[0].startswith("x-amz-meta-")]
        size = sum(len(name.removeprefix("x-amz-meta-")) + len(value) for name, value in metadata)
        assert size <= 2048
        answer = self.answer(request)
        if self.objects and not self.lost and request.method != "HEAD":
            self.lost += 1
            return ()
        return answer


@pytest.mark.usefixtures("s3_server")
@pytest.mark.parametrize("size", [10, PART + 1])
def test_metadata_of_the_user_leaves_room_for_the_mark(size: int) -> None:
    memory = Losing()
    server = memory.serve()
    server._handler = memory.serve_and_lose
    metadata = {"a": "v" * (MOST - 1)}
    with (
        server,
        S3Client("us-east-1", endpoint=server.endpoint, s3client_config=config_of(metadata=metadata)) as client,
    ):
        with client.put_object("bucket", "key", overwrite=False) as writer:
            writer.write(noise(size))
        assert memory.lost == 1
        with pytest.raises(S3ObjectExistsError):
            client.put_object("bucket", "key", overwrite=False)
    assert memory.objects["key"].metadata["x-amz-meta-a"] == metadata["a"]
    assert MARK in str(memory.objects["key"].metadata)
