"""A wrong local clock: the server's ``Date`` corrects it, also if a refusal has no document."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from s3torchconnector._errors import S3AccessDeniedError
from s3torchconnector._wire import operations, read_document
from tests.servers.http_messages import ReceivedRequest, response
from tests.servers.scripted import Reply, ScriptedServer
from tests.wire.support import open_caller

pytestmark = pytest.mark.usefixtures("keys")
OURS = 86400.0  # a day after 1970 began
HEAD = operations.head_object("b", "k")


def refusal(server_time: float) -> bytes:
    return response(403, headers={"Date": formatdate(server_time, usegmt=True)})


@pytest.mark.parametrize("seconds", [16 * 60.0, -16 * 60.0, 366 * 86400.0])
def test_head_refused_for_our_clock_follows_the_servers(seconds: float) -> None:
    def answer(request: ReceivedRequest) -> Reply:
        if len(server.requests) == 1:
            return refusal(OURS + seconds)
        return response(200)

    with ScriptedServer(handler=answer) as server, open_caller(server.endpoint) as caller:
        caller._authenticator._clock = lambda: OURS
        for _ in range(2):
            caller.call(HEAD, read_document)
        first, *others = [request.headers["x-amz-date"] for request in server.requests]
    assert first == "19700102T000000Z"
    assert len(others) == 2
    assert all(other != first for other in others)


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_head_refused_for_other_reasons_is_not_sent_again(seconds: float) -> None:
    with ScriptedServer(handler=lambda _: refusal(OURS + seconds)) as server, open_caller(server.endpoint) as caller:
        caller._authenticator._clock = lambda: OURS
        with pytest.raises(S3AccessDeniedError, match="HeadObject s3://b/k: HTTP 403"):
            caller.call(HEAD, read_document)
        assert len(server.requests) == 1


def test_a_head_that_stays_refused_is_sent_twice() -> None:
    with ScriptedServer(handler=lambda _: refusal(OURS + 3600.0)) as server, open_caller(server.endpoint) as caller:
        caller._authenticator._clock = lambda: OURS
        for requests_so_far in (2, 3):  # the server's clock is followed by now
            with pytest.raises(S3AccessDeniedError):
                caller.call(HEAD, read_document)
            assert len(server.requests) == requests_so_far
