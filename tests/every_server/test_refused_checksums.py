"""Servers that refuse checksums without saying so: requested once more without, remembered, logged once."""

from __future__ import annotations

import pytest

from s3torchconnector import S3Exception
from tests.reading.support import MIB, PART, client_of, content, put
from tests.servers.http_messages import ReceivedRequest, s3_error
from tests.servers.scripted import ScriptedServer
from tests.servers.stand_ins import AwsLike, Backblaze, Gcs

pytestmark = pytest.mark.usefixtures("s3_server")  # for its keys
DATA = content(0, PART + MIB)
REFUSING = pytest.mark.parametrize("kind", [Backblaze, Gcs])


def carries(request: ReceivedRequest) -> bool:
    return any(name.startswith("x-amz-checksum") for name in request.headers)


@REFUSING
def test_a_refusal_costs_one_request_of_each_kind(kind: type[AwsLike], caplog: pytest.LogCaptureFixture) -> None:
    memory = kind()
    with memory.serve() as server, client_of(server.endpoint) as client:
        for key in ("a", "b", "c"):
            put(client, "bucket", key, key.encode())
        for key in ("a", "b", "c"):
            with client.get_object("bucket", key) as reader:
                assert reader.read() == key.encode()
        assert [each.method for each in memory.requests] == ["PUT"] * 4 + ["GET"] * 4
        assert [carries(each) for each in memory.requests] == [True, False, False, False] * 2
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 2


@REFUSING
def test_required_sends_and_reads_nothing_without_checksums(kind: type[AwsLike]) -> None:
    memory = kind()
    with memory.serve() as server, client_of(server.endpoint, checksum="off") as client:
        put(client, "bucket", "there", DATA)
    memory.requests.clear()
    with memory.serve() as server, client_of(server.endpoint, checksum="required") as client:
        with pytest.raises(S3Exception):
            put(client, "bucket", "key", DATA)
        with client.get_object("bucket", "there") as reader, pytest.raises(S3Exception):
            reader.read()
        assert all(carries(each) for each in memory.requests if each.method in ("PUT", "GET"))
    assert "key" not in memory.objects


def test_a_wrong_secret_key_is_no_matter_of_checksums(caplog: pytest.LogCaptureFixture) -> None:
    refusal = s3_error(403, "SignatureDoesNotMatch", "The request signature we calculated does not match")
    with ScriptedServer(handler=lambda _: refusal) as server, client_of(server.endpoint) as client:
        for _ in range(2):
            with pytest.raises(S3Exception, match="check the secret key"):
                put(client, "bucket", "key", b"data")
            with client.get_object("bucket", "key") as reader, pytest.raises(S3Exception, match="secret key"):
                reader.read()
        assert [carries(each) for each in server.requests] == [True] * 4
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
