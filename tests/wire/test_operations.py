"""Requests as values and as bytes: ranges, headers, and characters that must not get into them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector import S3ClientConfig
from s3torchconnector._identity import Credentials, EndpointResolver, Signer
from s3torchconnector._s3client import S3Client
from s3torchconnector._wire import operations
from s3torchconnector._wire._account_headers import AccountHeaders
from s3torchconnector._wire._head import HeadBuilder, _is_simple
from s3torchconnector._wire._operations import Request
from s3torchconnector._wire._proxy import Proxy

ENDPOINT = EndpointResolver("us-east-1", "http://127.0.0.1:9000", S3ClientConfig()).resolve("b")
TIMESTAMP = "20260131T102030Z"


def head(
    request: Request, *, signed: bool = False, proxy: Proxy | None = None, builder: HeadBuilder | None = None
) -> str:
    signer = Signer("us-east-1") if signed else None
    credentials = Credentials("AKID", "secret", "token") if signed else None
    built = (builder or HeadBuilder("agent/1")).build(request, ENDPOINT, signer, credentials, TIMESTAMP, proxy)
    return built.decode("latin-1")


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (None, None, None),
        (0, 1, "bytes=0-0"),
        (5, 10, "bytes=5-9"),
        (5, None, "bytes=5-"),
        (None, 10, "bytes=0-9"),
        (-7, None, "bytes=-7"),
    ],
)
def test_ranges(start: int | None, stop: int | None, expected: str | None) -> None:
    request = operations.get_object("b", "k", start, stop)
    assert request.headers.get("range") == expected
    assert request.also_good == ((416,) if expected else ())


def test_a_known_version_is_named_in_if_match() -> None:
    assert operations.get_object("b", "k", if_match='"e"').headers == {"if-match": '"e"'}


@pytest.mark.parametrize("value", ["STANDARD\r\nx-evil: 1", "A\nB", "A\rB", "\r\n"])
@pytest.mark.parametrize("signed", [True, False])
def test_headers_cannot_be_injected(value: str, signed: bool) -> None:
    with pytest.raises(ValueError, match="x-amz-storage-class contains a line break"):
        head(operations.put_object("b", "k", [], options={"x-amz-storage-class": value}), signed=signed)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_no_key_breaks_out_of_its_line(key: str) -> None:
    lines = head(operations.copy_object("b", key, "b", key)).split("\r\n")
    assert lines[0].count(" ") == 2
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "host",
        "x-amz-copy-source",
        "content-length",
        "user-agent",
        "",
        "",
    ]


def test_only_signed_requests_have_an_authorization() -> None:
    request = operations.get_object("b", "k")
    assert "authorization" not in head(request).lower()
    signed = head(request, signed=True).lower()
    assert "authorization: aws4-hmac-sha256 credential=akid/20260131/us-east-1/s3/aws4_request" in signed
    assert "x-amz-security-token: token" in signed
    assert "secret" not in signed


def test_requester_pays_is_sent_and_signed() -> None:
    text = head(
        operations.get_object("b", "k"),
        signed=True,
        builder=HeadBuilder("agent/1", AccountHeaders(S3ClientConfig(requester_pays=True))),
    )
    assert "x-amz-request-payer: requester\r\n" in text
    assert "x-amz-request-payer" in text.partition("SignedHeaders=")[2].partition(",")[0]


def test_content_length_is_sent_only_if_there_may_be_a_body() -> None:
    assert "content-length: 5\r\n" in head(operations.put_object("b", "k", [b"ab", bytearray(b"cde")]))
    assert "content-length: 0\r\n" in head(operations.create_multipart_upload("b", "k"))
    for request in (
        operations.get_object("b", "k"),
        operations.delete_object("b", "k"),
        operations.head_object("b", "k"),
    ):
        assert "content-length" not in head(request)


def test_http_proxies_get_absolute_targets_and_own_credentials() -> None:
    text = head(operations.list_objects("b", "p q"), proxy=Proxy("proxy", 3128, "Basic xyz"))
    assert text.startswith(
        "GET http://127.0.0.1:9000/b?encoding-type=url&list-type=2&max-keys=1000&prefix=p%20q HTTP/1.1\r\n"
    )
    assert "proxy-authorization: Basic xyz\r\n" in text


def test_a_listing_sends_only_the_given_parameters() -> None:
    query = dict(operations.list_objects("b", "p", "/", max_keys=5, token="t", start_after="s").query)
    assert query == {
        "encoding-type": "url", "list-type": "2", "max-keys": "5", "prefix": "p", "delimiter": "/",
        "continuation-token": "t", "start-after": "s",
    }  # fmt: skip


@pytest.mark.parametrize("agent", ["a\r\nb", "a\nb", "\0", "☃"])
def test_user_agents_that_cannot_be_sent_are_refused_at_once(agent: str) -> None:
    with pytest.raises(ValueError, match="user_agent"):
        S3Client("us-east-1", user_agent=agent)


def test_request_says_what_it_is_on_one_line() -> None:
    assert str(operations.get_object("b", "a\nb")) == "GetObject s3://b/a\\nb"


class CountingSigner(Signer):
    """A signer that counts the forms it has prepared."""

    prepared = 0

    def prepare(self, *arguments: Any) -> Any:
        self.prepared += 1
        return super().prepare(*arguments)


def test_requests_that_differ_in_their_ranges_share_a_form() -> None:
    """Samples of archives: a form for each would be a tenth of what a sample costs."""
    builder, signer, credentials = HeadBuilder("agent/1"), CountingSigner("us-east-1"), Credentials("A", "secret", "t")
    for start in range(20):
        for stop in (start + 5, None):
            request = operations.get_object("b", f"k{start % 3}", start, stop)
            built = builder.build(request, ENDPOINT, signer, credentials, TIMESTAMP)
            alone = HeadBuilder("agent/1").build(request, ENDPOINT, Signer("us-east-1"), credentials, TIMESTAMP)
            assert built == alone
    assert signer.prepared == 2


@given(st.text("bytes=", max_size=7) | st.just("bytes="), st.text("0123456789-, ²", max_size=9))
def test_one_range_is_told_from_any_other_text(unit: str, values: str) -> None:
    text = unit + values
    assert _is_simple(text) == (re.fullmatch("bytes=[0-9]*-[0-9]*", text) is not None)


def test_a_form_of_ranges_is_not_used_once_a_bucket_is_asked_otherwise() -> None:
    builder, signer, credentials = HeadBuilder("a", checksums=True), Signer("us-east-1"), Credentials("A", "secret")

    def built(start: int) -> bytes:
        return builder.build(operations.get_object("b", "k", start, 9), ENDPOINT, signer, credentials, TIMESTAMP)

    assert all(b"x-amz-checksum-mode" in built(start) for start in (0, 1))
    builder.stop_asking("b")
    assert all(b"x-amz-checksum-mode" not in built(start) for start in (2, 3))
