"""A redirect never sends a request to another host: only the region in it is used."""

from __future__ import annotations

import pytest

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3Exception
from s3torchconnector._identity import EndpointResolver
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.scripted import ScriptedServer
from tests.wire.support import open_client

_STATUSES = [301, 302, 303, 307, 308]
_HOSTS_AS_REGIONS = [
    "evil.example",
    "evil.example/",
    "evil.example#",
    "x@evil.example",
    "eu-west-1.evil.example",
    "a b",
]


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("status", _STATUSES)
@pytest.mark.parametrize("code", ["TemporaryRedirect", "PermanentRedirect", None])
def test_no_request_goes_where_a_redirect_points(status: int, code: str | None) -> None:
    """Neither reads nor writes, with or without a region."""
    with ScriptedServer(handler=lambda request: response(200, b"stolen", {"ETag": '"e"'})) as elsewhere:

        def redirect(request: ReceivedRequest) -> bytes:
            headers = {"Location": f"{elsewhere.endpoint}{request.target}", "x-amz-bucket-region": "eu-west-1"}
            body = s3_error(status, code, Endpoint=elsewhere.endpoint).split(b"\r\n\r\n", 1)[1] if code else b""
            return response(status, b"" if request.method == "HEAD" else body, headers)

        with ScriptedServer(handler=redirect) as server, open_client(server.endpoint) as client:
            stream = client.put_object("b", "k")
            stream.write(b"x")
            for attempt in (client.get_object("b", "k").read, lambda: client.head_object("b", "k"), stream.close):
                with pytest.raises(S3Exception):
                    attempt()
        assert elsewhere.accepted == 0


@pytest.mark.parametrize("region", _HOSTS_AS_REGIONS)
def test_a_region_named_by_a_server_cannot_be_a_host(region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a custom endpoint, the region is a part of the host name."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    try:
        host = EndpointResolver(region, endpoint=None, config=S3ClientConfig()).resolve("bucket").host
    except S3Exception:
        return
    assert host.endswith(".amazonaws.com")
