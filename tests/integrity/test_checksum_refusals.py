"""What a refusal says about checksums: nothing, unless the server then takes the same request without one."""

from __future__ import annotations

import pytest

from s3torchconnector import S3Exception, S3Writer
from s3torchconnector._s3client import S3Client
from tests.reading.support import PART, client_of
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.scripted import Reply, ScriptedServer

pytestmark = pytest.mark.usefixtures("s3_server")  # for its keys
NOT_IMPLEMENTED = s3_error(501, "NotImplemented", "A header you provided implies functionality that is not implemented")
STORED = response(200, headers={"ETag": '"one"'})


def put(client: S3Client, bucket: str = "b") -> None:
    with S3Writer(client.put_object(bucket, "key")) as writer:
        writer.write(b"data")


def carries(request: ReceivedRequest) -> bool:
    return any(name.startswith("x-amz-checksum") for name in request.headers)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_refusal_that_is_not_about_checksums_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    refusals = [NOT_IMPLEMENTED, NOT_IMPLEMENTED]  # with a checksum and without
    with (
        ScriptedServer(handler=lambda _: refusals.pop() if refusals else STORED) as server,
        client_of(server.endpoint) as client,
    ):
        with pytest.raises(S3Exception, match="NotImplemented"):
            put(client)
        put(client)
        assert [carries(request) for request in server.requests] == [True, False, True]
    assert warnings(caplog) == []


def refusing_checksums(request: ReceivedRequest) -> Reply:
    return NOT_IMPLEMENTED if carries(request) and request.path.startswith("/refusing/") else STORED


def test_a_refusal_counts_for_its_bucket_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(handler=refusing_checksums) as server, client_of(server.endpoint) as client:
        for bucket in ("refusing", "refusing", "other", "other"):
            put(client, bucket)
        assert [carries(request) for request in server.requests] == [True, False, False, True, True]
    [warning] = warnings(caplog)
    assert "s3://refusing" in warning
    assert "NotImplemented" in warning
    assert 'checksum="required"' in warning


def test_a_gateways_501_counts_once(caplog: pytest.LogCaptureFixture) -> None:
    answers = [response(501, b"<html>gateway</html>"), STORED, STORED, response(501), STORED]
    with ScriptedServer(handler=lambda _: answers.pop(0)) as server, client_of(server.endpoint) as client:
        for _ in range(3):
            put(client)
        assert [carries(request) for request in server.requests] == [True, False, True, True, False]
    assert len(warnings(caplog)) == 1


def test_required_never_sends_an_upload_without_checksum() -> None:
    with (
        ScriptedServer(handler=refusing_checksums) as server,
        client_of(server.endpoint, checksum="required") as client,
    ):
        for _ in range(2):
            with pytest.raises(S3Exception, match="NotImplemented"):
                put(client, "refusing")
        assert all(carries(request) for request in server.requests)


def test_concurrent_parts_that_are_refused_warn_once(caplog: pytest.LogCaptureFixture) -> None:
    def answer(request: ReceivedRequest) -> Reply:
        if "uploads" in request.query:
            return response(
                200, b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
            )
        if carries(request):
            return NOT_IMPLEMENTED
        return STORED if request.method == "PUT" else response(200, b"<CompleteMultipartUploadResult/>", {"ETag": "e"})

    with ScriptedServer(handler=answer) as server, client_of(server.endpoint) as client:
        with S3Writer(client.put_object("b", "key")) as writer:
            writer.write(bytes(3 * PART))
        assert len([request for request in server.requests if "partNumber" in request.query]) >= 4
    assert len(warnings(caplog)) == 1
