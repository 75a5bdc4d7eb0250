"""Checksums of uploads: which servers take them, in which form, and what the client remembers about a bucket that does
not.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from s3torchconnector import S3Exception
from s3torchconnector._s3client import S3Client
from tests.reading.support import MIB, PART, client_of, content, put, wait_until
from tests.servers.http_messages import ReceivedRequest, s3_error
from tests.servers.stand_ins import AwsLike, Minio, OldMinio
from tests.servers.stand_ins.aws_like import MultipartUpload

DATA = content(0, PART + MIB)


class ComparesOtherwise(OldMinio):
    """An old MinIO that knows the algorithm."""

    def refuse(self, request: ReceivedRequest) -> bytes | None:
        return None


@pytest.fixture(autouse=True)
def _keys(s3_server: object) -> None:
    """Keys are in the environment."""


@pytest.fixture
def aws() -> Iterator[tuple[AwsLike, S3Client]]:
    memory = AwsLike()
    with memory.serve() as server, client_of(server.endpoint) as client:
        yield memory, client


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_an_upload_to_aws_costs_no_more_requests(
    aws: tuple[AwsLike, S3Client], caplog: pytest.LogCaptureFixture
) -> None:
    memory, client = aws
    put(client, "bucket", "key", DATA)
    with client.get_object("bucket", "key") as reader:
        assert reader.read() == DATA
    assert [each.method for each in memory.requests[:4]] == ["POST", "PUT", "PUT", "POST"]
    assert sorted(each.method for each in memory.requests[4:]) == ["GET", "GET", "HEAD"]
    assert b"<ChecksumCRC64NVME>" in memory.requests[3].body
    assert "x-amz-checksum-crc64nvme" in memory.requests[3].headers
    assert warnings(caplog) == []


def test_minio_gets_the_checksum_of_each_part(caplog: pytest.LogCaptureFixture) -> None:
    memory = Minio()
    with memory.serve() as server, client_of(server.endpoint, checksum="required") as client:
        put(client, "bucket", "key", DATA)
        with client.get_object("bucket", "key") as reader:
            assert reader.read() == DATA
        assert memory.count("POST", "uploadId") == 1
    assert warnings(caplog) == []


def test_an_old_minio_gets_no_checksum_of_the_whole_object(caplog: pytest.LogCaptureFixture) -> None:
    memory = ComparesOtherwise()
    with memory.serve() as server, client_of(server.endpoint) as client:
        for key in ("first", "second"):
            put(client, "bucket", key, DATA)
            assert memory.objects[key].data == DATA
        whole = [
            "x-amz-checksum-crc64nvme" in each.headers
            for each in memory.requests
            if "uploadId" in each.query and each.method == "POST"
        ]
        assert whole == [True, False, False]
        assert all(
            b"<ChecksumCRC64NVME>" in each.body for each in memory.requests if each.method == "POST" and each.body
        )
    assert [text for text in warnings(caplog) if "whole multipart upload" in text] != []
    assert len(warnings(caplog)) == 1


def test_required_does_not_go_without_the_checksum_of_the_whole() -> None:
    memory = ComparesOtherwise()
    with (
        memory.serve() as server,
        client_of(server.endpoint, checksum="required") as client,
        pytest.raises(S3Exception, match="XAmzContentChecksumMismatch"),
    ):
        put(client, "bucket", "key", DATA)
    assert memory.count("POST", "uploadId") == 1
    assert "key" not in memory.objects


def test_a_part_that_is_missing_is_no_matter_of_checksums(aws: tuple[AwsLike, S3Client]) -> None:
    memory, client = aws
    stream = client.put_object("bucket", "key")
    stream.write(DATA + DATA)
    wait_until(lambda: any(len(upload.parts) == 2 for upload in memory.uploads.values()))
    next(iter(memory.uploads.values())).parts.pop(1)
    with pytest.raises(S3Exception, match="InvalidPart"):
        stream.close()
    assert memory.objects == {}
    put(client, "bucket", "key", DATA)
    assert "x-amz-checksum-crc64nvme" in memory.requests[-1].headers


class RefusesAtTheEnd(AwsLike):
    """Takes the checksums of parts, and completes no upload that had any."""

    refusal = s3_error(400, "InvalidDigest", "Invalid checksum for part 1")

    def refuse_completion(self, request: ReceivedRequest, upload: MultipartUpload, parts: object) -> bytes | None:
        return self.refusal if upload.algorithm else None


class RefusesHeaderAtTheEnd(AwsLike):
    """Does not take the header of a completion, as Google's server refuses what it does not know."""

    def refuse_completion(self, request: ReceivedRequest, upload: MultipartUpload, parts: object) -> bytes | None:
        return s3_error(403, "SignatureDoesNotMatch", "Invalid argument.") if self.told(request) else None


def test_a_server_that_completes_no_upload_with_checksums_gets_none_next_time() -> None:
    memory = RefusesAtTheEnd()
    with memory.serve() as server, client_of(server.endpoint) as client:
        with pytest.raises(S3Exception, match="carry no checksums: write the object again"):
            put(client, "bucket", "key", DATA)
        assert memory.objects == {}
        assert memory.uploads == {}
        put(client, "bucket", "key", DATA)
        assert memory.objects["key"].data == DATA


def test_a_header_that_is_refused_at_the_completion_alone_is_left_out() -> None:
    memory = RefusesHeaderAtTheEnd()
    with memory.serve() as server, client_of(server.endpoint) as client:
        for key in ("a", "b"):
            put(client, "bucket", key, DATA)
        assert memory.count("POST", "uploadId") == 3
