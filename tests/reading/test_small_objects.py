"""Many small objects on one thread: none of them holds the others back."""

from __future__ import annotations

import threading

import pytest

from s3torchconnector._errors import S3NotFoundError
from tests.conftest import PrivateCA
from tests.reading.support import KIB, client_of, content, open_object
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.scripted import Reply, ScriptedServer, Send, Stall

SIZE = 100 * KIB
COUNT = 30


def answer_to(number: int, first: int = 0) -> bytes:
    headers = {"ETag": '"e"', "Content-Range": f"bytes {first}-{SIZE - 1}/{SIZE}"}
    return response(206, content(number + first, number + SIZE), headers)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("after", [0, 40, 2000, SIZE])  # bytes: nothing, in the head, after it, near the end
def test_a_response_that_stalls_holds_back_no_other(
    private_ca: PrivateCA, monkeypatch: pytest.MonkeyPatch, after: int, tls: bool
) -> None:
    release = threading.Event()

    def answer(request: ReceivedRequest) -> Reply:
        number = int(request.path.rpartition("/")[2])
        whole = answer_to(number)
        return [Send(whole[:after]), Stall(release), Send(whole[after:])] if number == 3 else whole

    monkeypatch.setenv("AWS_CA_BUNDLE", str(private_ca.bundle))
    context = private_ca.server_context if tls else None
    with ScriptedServer(handler=answer, tls=context) as server, client_of(server.endpoint, unsigned=True) as client:
        readers = [open_object(client, "bucket", str(i)) for i in range(COUNT)]
        for reader in readers:
            reader._start_early(SIZE)
        for i, reader in enumerate(readers):
            if i != 3:
                assert reader.read() == content(i, i + SIZE)
        release.set()
        assert readers[3].read() == content(3, 3 + SIZE)


def test_failures_are_retried_by_a_worker() -> None:
    """Refused, cut off in the middle, closed without a response, missing: each among others that arrive."""
    seen: set[int] = set()

    def answer(request: ReceivedRequest) -> Reply:
        number = int(request.path.rpartition("/")[2])
        if number == 7:
            return s3_error(404, "NoSuchKey")
        first = int(request.headers["range"].removeprefix("bytes=").partition("-")[0])
        if number in seen:
            return answer_to(number, first)
        seen.add(number)
        return {1: s3_error(503, "SlowDown"), 2: answer_to(number)[: SIZE // 2], 4: b""}.get(number, answer_to(number))

    with (
        ScriptedServer(handler=answer) as server,
        client_of(server.endpoint, unsigned=True, read_timeout=0.5) as client,
    ):
        readers = [open_object(client, "bucket", str(i)) for i in range(COUNT)]
        for reader in readers:
            reader._start_early(SIZE)
        for i, reader in enumerate(readers):
            if i == 7:
                with pytest.raises(S3NotFoundError, match="s3://bucket/7"):
                    reader.read()
            else:
                assert reader.read() == content(i, i + SIZE)
            reader.close()
        client.close()
        assert client._runtime().budget.taken == 0
