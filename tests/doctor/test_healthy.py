"""Set-ups that work: no failure, warnings only of what the server cannot do, and nothing left behind."""

from __future__ import annotations

import os
import time

import pytest

from s3torchconnector import S3ClientConfig, S3Credentials
from s3torchconnector._doctor import Finding, Status, Target, examine
from s3torchconnector._s3client import S3Client
from s3torchconnector._wire import Request, read_document
from s3torchconnector.testing import S3Server
from tests.doctor.support import STEP, Aws, checks_with, examined
from tests.servers.moto_server import MotoServer
from tests.servers.stand_ins import Express, Gcs, S3rver
from tests.servers.tls import PrivateCA


def test_rclone_is_healthy_and_left_as_it_was(s3_server: S3Server, bucket: str) -> None:
    folder = s3_server.folder / bucket / "data"
    folder.mkdir()
    for number in range(30):
        (folder / str(number)).write_bytes(bytes(1000))
    found = examined(None, bucket, write=True, workers=2, seconds=0.5)
    assert checks_with(found, Status.FAILURE) == checks_with(found, Status.SKIPPED) == set()
    # rclone ignores conditions and checksums, as docs/guide/servers.md says.
    assert checks_with(found, Status.WARNING) == {"if-none-match on put", "if-match on put", "checksums"}
    assert found["list"].text == "30 objects"
    assert found["head"].text == "the size is 1,000 bytes"
    assert found["server"].text.startswith("the server calls itself AmazonS3, and responds as S3 does, after ")
    assert found["checksums"].text.startswith("the server keeps checksums, but does not compare them: it would ")
    assert " objects/s, " in found["throughput"].text
    assert sum(len(files) for _, _, files in os.walk(folder.parent)) == 30


def test_moto_is_healthy_and_left_as_it_was(moto_server: MotoServer, moto_bucket: str) -> None:
    found = examined(moto_server.endpoint, moto_bucket, write=True, seconds=0.5)
    assert checks_with(found, Status.FAILURE) == set()
    # The bucket is empty, and moto compares no checksums.
    assert checks_with(found, Status.WARNING) == {"list", "checksums"}
    assert checks_with(found, Status.SKIPPED) == {"throughput"}
    assert "no object has a key that begins with ''" in examined(moto_server.endpoint, moto_bucket, "")["list"].text


def test_versions_are_removed_from_a_bucket_that_keeps_them(moto_server: MotoServer, moto_bucket: str) -> None:
    with S3Client("us-east-1", endpoint=moto_server.endpoint) as client:
        caller, query = client._runtime().caller, (("versioning", ""),)
        body = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
        caller.call(Request("PutBucketVersioning", "PUT", moto_bucket, query=query, body=[body]), read_document)
        found = examined(moto_server.endpoint, moto_bucket, "", write=True)
        listed = caller.call(Request("List", "GET", moto_bucket, query=(("versions", ""),)), read_document)
    assert "nothing of them is left" in found["delete"].text
    assert b"ListVersionsResult" in listed
    assert b"<Version>" not in listed
    assert b"<DeleteMarker>" not in listed


def test_what_aws_does_passes_every_check(keys: None) -> None:
    aws = Aws()
    with aws.serve() as server:
        found = examined(server.endpoint, write=True)
    assert checks_with(found, Status.PASS) == set(found)
    assert found["checksums"].text.count("compared and kept") == found["checksums"].text.count("CRC")
    assert sorted(aws.objects) == ["data/0", "data/1", "data/2"]
    assert not aws.uploads


def test_without_write_nothing_is_sent_that_writes(keys: None) -> None:
    aws = Aws()
    with aws.serve() as server:
        found = examined(server.endpoint)
    assert {request.method for request in aws.requests} == {"GET", "HEAD"}
    assert checks_with(found, Status.SKIPPED) == {"writing"}
    assert "--write" in found["writing"].text


def test_an_object_can_be_named_instead_of_a_prefix(keys: None) -> None:
    with Aws().serve() as server:
        found = examined(server.endpoint, prefix="data/1")
    assert "'data/1'" in found["get"].text
    assert checks_with(found, Status.FAILURE) == set()


def test_uploads_that_cannot_be_listed_are_a_warning(keys: None) -> None:
    s3rver = S3rver()
    with s3rver.serve() as server:
        found = examined(server.endpoint, prefix="", write=True)
    assert checks_with(found, Status.FAILURE) == {"clock"}  # as above
    assert "clean finds no unfinished uploads" in found["list uploads"].text
    assert "s3:ListBucketMultipartUploads on arn:aws:s3:::bucket," in found["list uploads"].fix


def test_directory_buckets_are_not_asked_for_an_order(keys: None) -> None:
    express = Express()
    express.now, express.seconds_to_store = int(time.time()), 0
    with express.serve() as server:
        found = examined(server.endpoint, express.bucket, "", write=True)
    assert checks_with(found, Status.FAILURE) == set()
    assert "directory bucket" in found["start-after"].text


def test_a_server_that_refuses_checksums_is_reported(keys: None) -> None:
    gcs = Gcs()
    with gcs.serve() as server:
        found = examined(server.endpoint, prefix="", write=True)
    assert found["checksums"].status is Status.WARNING
    assert 'checksum="off"' in found["checksums"].fix
    assert checks_with(found, Status.FAILURE) == {"clock"}  # of the stand-in, which lives in another time
    assert not gcs.objects


def test_tls_is_described(s3_server_tls: S3Server, private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    s3_server_tls.make_bucket("tls-bucket")
    found = examined(None, "tls-bucket", "")
    assert checks_with(found, Status.FAILURE) == set()
    assert "trustme" in found["tls"].text
    assert f"AWS_CA_BUNDLE={private_ca.bundle}" in found["tls"].text


def test_a_large_object_is_measured(s3_server: S3Server, bucket: str) -> None:
    (s3_server.folder / bucket / "large").write_bytes(bytes(20 * 1024**2))
    found = examined(None, bucket, "", seconds=0.5)
    assert "MB/s of one object" in found["throughput"].text


@pytest.mark.parametrize("end", ["close", "ctrl-c"])
def test_what_was_written_is_removed_if_it_is_interrupted(keys: None, end: str) -> None:
    aws = Aws()
    with aws.serve() as server:
        findings = examine(Target("bucket", "data/", endpoint=server.endpoint, write=True, step_seconds=STEP))
        assert any(finding.check == "put" for finding in findings)  # up to it
        assert any("doctor" in key for key in aws.objects)
        if end == "close":
            findings.close()
        else:
            with pytest.raises(KeyboardInterrupt):
                findings.throw(KeyboardInterrupt())
    assert sorted(aws.objects) == ["data/0", "data/1", "data/2"]


def test_neither_the_secret_nor_the_whole_access_key_is_shown() -> None:
    given = S3Credentials("AKIAIOSFODNN7EXAMPLE", "the-secret-of-the-test", "the-token-of-the-test")
    with Aws().serve() as server:
        found = examined(server.endpoint, config=S3ClientConfig(credentials=given))
    text = _text_of(found)
    assert "AKIA...MPLE" in found["credentials"].text
    assert not any(secret in text for secret in (given.access_key, given.secret_key, given.session_token or "?"))
    assert found["credentials"].status is Status.WARNING  # temporary keys that nothing renews


def test_renewed_credentials_have_their_expiry() -> None:
    def issue() -> S3Credentials:
        return S3Credentials("AKIAIOSFODNN7EXAMPLE", "secret", "token", expiry=time.time() + 5 * 3600 + 60)

    with Aws().serve() as server:
        found = examined(server.endpoint, config=S3ClientConfig(credentials=issue))
    assert found["credentials"].status is Status.PASS
    assert "valid for 5 hours, and renewed in time" in found["credentials"].text


def test_public_buckets_need_no_credentials() -> None:
    with Aws().serve() as server:
        found = examined(server.endpoint, config=S3ClientConfig(unsigned=True))
    assert checks_with(found, Status.PASS) == set(found) - {"writing"}


def _text_of(found: dict[str, Finding]) -> str:
    return "\n".join(f"{finding.text} {finding.fix}" for finding in found.values())
