"""Servers that are not S3 servers, or broken ones: a clear error, soon, and no wrong or missing data."""

from __future__ import annotations

import socket

import pytest

from s3torchconnector import S3ClientConfig
from s3torchconnector._errors import S3ConnectionError, S3Exception, S3NotFoundError, S3ProtocolError, S3ServiceError
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer import PutObjectStream
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.scripted import Close, ScriptedServer, Send
from tests.servers.tcp import TcpServer
from tests.wire.support import in_turn, open_client

pytestmark = pytest.mark.usefixtures("keys")
HTML = b"<!doctype html><html><body>It works!</body></html>"
DATA = b"0123456789"
CHUNKED = {"Transfer-Encoding": "chunked"}


def get(client: S3Client) -> bytes:
    return client.get_object("b", "k").read()


def partial(content_range: str, body: bytes = DATA, **headers: str) -> bytes:
    return response(206, body, {"Content-Range": content_range, "ETag": '"e"', **headers})


def write_and_close(stream: PutObjectStream) -> None:
    stream.write(bytes(12 << 20))  # two parts
    stream.close()


# -- another kind of server ---------------------------------------------------------------------------------------


class Speaking(TcpServer):
    """Sends its banner before any request, as SSH, SMTP and FTP servers do, and then waits."""

    def __init__(self, banner: bytes) -> None:
        super().__init__()
        self._banner = banner

    def serve(self, connection: socket.socket, number: int) -> None:
        connection.sendall(self._banner)
        while connection.recv(1 << 20):
            pass


@pytest.mark.parametrize("banner", [b"SSH-2.0-OpenSSH_9.6\r\n", b"220 mail ESMTP\r\n", b"\x15\x03\x03\x00\x02\x02\x46"])
def test_servers_of_other_protocols_are_recognised_at_once(banner: bytes) -> None:
    with (
        Speaking(banner) as server,
        open_client(server.endpoint) as client,
        pytest.raises(S3ProtocolError, match="does not begin like HTTP"),
    ):
        client.head_object("b", "k")


@pytest.mark.parametrize("status", [400, 403, 404, 405])
def test_web_server_that_refuses(status: int) -> None:
    with ScriptedServer(handler=in_turn(response(status, HTML))) as server, open_client(server.endpoint) as client:
        with pytest.raises(S3ProtocolError, match=rf"HTTP {status} .*Is the endpoint an S3 server\?") as caught:
            get(client)
        assert (caught.value.status, caught.value.bucket, caught.value.key) == (status, "b", "k")


def test_a_web_server_that_accepts_all_is_no_success() -> None:
    with ScriptedServer(handler=in_turn(response(200, HTML))) as server, open_client(server.endpoint) as client:
        with pytest.raises(S3ProtocolError):
            list(client.list_objects("b"))
        with pytest.raises(S3ProtocolError):
            client.copy_object("b", "k", "b", "l")
        stream = client.put_object("b", "k")
        stream.write(DATA)
        with pytest.raises(S3ProtocolError, match="no ETag"):
            stream.close()
        stream = client.put_object("b", "k")
        with pytest.raises(S3ProtocolError):
            write_and_close(stream)


def test_server_that_closes_at_once() -> None:
    with ScriptedServer() as server, open_client(server.endpoint) as client:
        with pytest.raises(S3ConnectionError, match=r"127\.0\.0\.1.*\(after 3 attempts\)"):
            get(client)
        assert server.accepted == 3


def test_tls_is_not_spoken_by_a_plain_server() -> None:
    with Speaking(response(400, HTML)) as server:
        endpoint = server.endpoint.replace("http:", "https:")
        with (
            open_client(endpoint, S3ClientConfig(max_attempts=1)) as client,
            pytest.raises(S3ConnectionError, match="TLS handshake"),
        ):
            get(client)


# -- an S3 server that is broken ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (partial("bytes 5-14/20"), "but 0 to 20 were requested"),
        (partial("bytes 0-8/9"), "10 bytes, but its Content-Range says 9"),
        (partial("bytes 0-10/11"), "10 bytes, but its Content-Range says 11"),
        (partial("bytes 9-0/10"), "impossible Content-Range"),
        (partial("bytes 0-9/5"), "impossible Content-Range"),
        (partial("bytes 0-9/*"), "malformed Content-Range"),
        (partial("bytes -1-9/10"), "malformed Content-Range"),
        (partial("lines 0-9/10"), "malformed Content-Range"),
        (partial("bytes 0-9/" + "9" * 40), "malformed Content-Range"),
        (partial("bytes 0-9/9223372036854775807"), "larger than any object"),
        (response(206, DATA), "no Content-Range"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + DATA, "neither the object's size nor its range"),
        (response(200, DATA, {"Content-Length": "-1"}), "malformed Content-Length"),
        (response(200, DATA, {"Content-Length": "9" * 30}), "malformed Content-Length"),
        (response(200, DATA, {"Content-Length": "9" * 19}), "larger than any object"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Length: 11\r\n\r\n" + DATA, "two different Content-Length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: br\r\n\r\n" + DATA, "unknown Transfer-Encoding"),
        (partial("bytes 0-9/10", b"zz\r\n", **CHUNKED), "malformed size line"),
        (partial("bytes 0-9/10", b"5\r\n01234\r\n0\r\n\r\n", **CHUNKED), "but 5 to 10 were requested"),
        (b"HTTP/2 200\r\n\r\n", "does not begin like HTTP/1.1"),
    ],
)  # fmt: skip
def test_a_response_that_does_not_match_the_request(answer: bytes, reason: str) -> None:
    with (
        ScriptedServer(handler=lambda request: [Send(answer), Close()]) as server,
        open_client(server.endpoint) as client,
    ):
        with pytest.raises(S3ProtocolError, match=reason) as caught:
            get(client)
        assert (caught.value.operation, caught.value.bucket, caught.value.key) == ("GetObject", "b", "k")
        assert "s3://b/k" in str(caught.value)


def test_a_truncated_response_in_every_attempt_is_an_error() -> None:
    answer = partial("bytes 0-9/10")[:-4]
    script = in_turn([Send(answer), Close()], [Close()])
    with ScriptedServer(handler=script) as server, open_client(server.endpoint) as client:
        with pytest.raises(S3ConnectionError, match=r"GetObject s3://b/k.*\(after 3 attempts\)"):
            get(client)
        assert [each.range for each in server.requests[1:]] == ["bytes=6-9", "bytes=6-9"]


@pytest.mark.parametrize("body", [b"<Error><Code>NoSuchKey</Co", b"<Error/>", b"\xff\xfe", b"<a>&undefined;</a>"])
def test_malformed_error_document(body: bytes) -> None:
    with (
        ScriptedServer(handler=in_turn(response(400, body))) as server,
        open_client(server.endpoint) as client,
        pytest.raises(S3ProtocolError, match="not S3's"),
    ):
        get(client)


@pytest.mark.parametrize("body", [b"", b"<ListBucketResult>", b"<Other/>", b"null"])
def test_malformed_listing(body: bytes) -> None:
    with (
        ScriptedServer(handler=in_turn(response(200, body))) as server,
        open_client(server.endpoint) as client,
        pytest.raises(S3ProtocolError, match=r"ListObjectsV2 s3://b"),
    ):
        list(client.list_objects("b"))


def test_an_endless_error_document_is_refused() -> None:
    answer = response(400, b"<Error>" + b" " * (2 << 20))
    with (
        ScriptedServer(handler=in_turn(answer)) as server,
        open_client(server.endpoint) as client,
        pytest.raises(S3ProtocolError, match="longer than"),
    ):
        get(client)


def test_an_error_in_a_200_response_is_raised() -> None:
    answer = s3_error(200, "AccessDenied", "in the body of a 200")
    with (
        ScriptedServer(handler=in_turn(answer)) as server,
        open_client(server.endpoint) as client,
        pytest.raises(PermissionError, match="in the body of a 200"),
    ):
        client.copy_object("b", "k", "b", "l")


def test_a_server_error_in_a_200_response_is_retried() -> None:
    answers = in_turn(
        s3_error(200, "InternalError"), response(200, b"<CopyObjectResult><ETag>e</ETag></CopyObjectResult>")
    )
    with ScriptedServer(handler=answers) as server, open_client(server.endpoint) as client:
        client.copy_object("b", "k", "b", "l")
        assert len(server.requests) == 2


# -- odd, but good --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        response(200, DATA),
        partial("bytes 0-9/10"),
        partial("bytes 0-9/10", b"4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n", **CHUNKED),
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/10\r\n\r\n" + DATA,
    ],
    ids=["ranges ignored", "plain", "chunked", "ends with the connection"],
)
def test_odd_but_complete_responses_are_accepted(answer: bytes) -> None:
    with (
        ScriptedServer(handler=lambda request: [Send(answer), Close()]) as server,
        open_client(server.endpoint) as client,
    ):
        assert get(client) == DATA
        assert len(server.requests) == 1


def test_tail_of_an_object_on_a_server_that_ignores_ranges() -> None:
    with (
        ScriptedServer(handler=in_turn(response(200, DATA, {"ETag": '"e"'}))) as server,
        open_client(server.endpoint) as client,
    ):
        reader = client.get_object("b", "k")
        reader.seek(-3, 2)
        assert reader.read() == DATA[-3:]


@pytest.mark.parametrize(
    "answer",
    [
        response(200, b""),
        response(416, b"", {"Content-Range": "bytes */0"}),
        s3_error(416, "InvalidRange").replace(b"\r\n", b"\r\nContent-Range: bytes */0\r\n", 1),
    ],
    ids=["200", "416", "416 with document"],
)
def test_empty_object(answer: bytes) -> None:
    with ScriptedServer(handler=in_turn(answer)) as server, open_client(server.endpoint) as client:
        assert get(client) == b""
        assert len(server.requests) == 1


@pytest.mark.parametrize("size", [0, 10])
def test_416_without_the_size_is_resolved_by_head(size: int) -> None:
    """Some servers respond to a suffix range with 416, without a size, instead of sending the whole object."""

    def answer(request: ReceivedRequest) -> bytes:
        if request.method == "HEAD":
            return b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: "e"\r\n\r\n' % size
        if request.range == "bytes=0-9" and size:
            return partial("bytes 0-9/10")
        return s3_error(416, "InvalidRange")

    with ScriptedServer(handler=answer) as server, open_client(server.endpoint) as client:
        reader = client.get_object("b", "k")
        assert reader.seek(0, 2) == size
        reader.seek(0)
        assert reader.read() == DATA[:size]


def test_416_for_a_range_that_the_object_has_is_an_error() -> None:
    def answer(request: ReceivedRequest) -> bytes:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
        return head if request.method == "HEAD" else s3_error(416, "InvalidRange")

    with (
        ScriptedServer(handler=answer) as server,
        open_client(server.endpoint) as client,
        pytest.raises(S3ProtocolError, match="refuses a range of s3://b/k"),
    ):
        get(client)


def test_head_of_something_missing_has_no_document() -> None:
    with (
        ScriptedServer(handler=in_turn(b"HTTP/1.1 404 Not Found\r\nContent-Length: 99\r\n\r\n")) as server,
        open_client(server.endpoint) as client,
        pytest.raises(S3NotFoundError, match=r"^Service error: The object was not found"),
    ):
        client.head_object("b", "k")


def test_every_error_is_an_s3_exception_with_context() -> None:
    with ScriptedServer(handler=in_turn(s3_error(418, "Teapot"))) as server, open_client(server.endpoint) as client:
        with pytest.raises(S3ServiceError, match="HTTP 418 Teapot") as caught:
            client.delete_object("b", "k")
        error: S3Exception = caught.value
        assert (error.operation, error.bucket, error.key, error.status) == ("DeleteObject", "b", "k", 418)
