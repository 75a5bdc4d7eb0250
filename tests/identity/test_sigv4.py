"""Compares signatures with AWS's published examples and, for everything else, with botocore's signer."""

from __future__ import annotations

import hashlib
from urllib.parse import unquote

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from botocore.utils import percent_encode
from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector._identity import (
    EMPTY_SHA256,
    UNSIGNED_PAYLOAD,
    Credentials,
    Signer,
    canonical_query,
    canonical_request,
    quote_path,
    signing_key,
    string_to_sign,
)

# "Examples: Signature Calculations", Amazon S3 API reference.
EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
EXAMPLE_TIME = "20130524T000000Z"
EXAMPLE_SCOPE = "20130524/us-east-1/s3/aws4_request"
EXAMPLE_HOST = {"host": "examplebucket.s3.amazonaws.com"}
WELCOME_SHA256 = hashlib.sha256(b"Welcome to Amazon S3.").hexdigest()

# (method, path, query, headers, payload hash, hash of the canonical request, signature)
EXAMPLES = {
    "GET object with a range": (
        "GET",
        quote_path("/test.txt"),
        "",
        {"range": "bytes=0-9"},
        EMPTY_SHA256,
        "7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    "PUT object": (
        "PUT",
        quote_path("/test$file.text"),
        "",
        {"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
        WELCOME_SHA256,
        "9e0e90d9c76de8fa5b200d8c849cd5b8dc7a3be3951ddb7f6a76b4158342019d",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    "GET bucket lifecycle": (
        "GET",
        "/",
        canonical_query([("lifecycle", "")]),
        {},
        EMPTY_SHA256,
        "9766c798316ff2757b517bc739a67f6213b4ab36dd5da2f94eaebf79c77395ca",
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ),
    "list objects": (
        "GET",
        "/",
        canonical_query([("prefix", "J"), ("max-keys", "2")]),
        {},
        EMPTY_SHA256,
        "df57d21db20da04d7fa30298dd4488ba3a2b47ca3a489c74750e0f1e7df1b9b7",
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_published_examples(example: tuple) -> None:
    method, path, query, headers, payload_hash, request_hash, signature = example
    headers = {**EXAMPLE_HOST, **headers}

    added = Signer("us-east-1").sign(EXAMPLE, method, path, query, headers, payload_hash, EXAMPLE_TIME)

    names = ";".join(sorted([*headers, "x-amz-content-sha256", "x-amz-date"]))
    assert added == {
        "x-amz-content-sha256": payload_hash,
        "x-amz-date": EXAMPLE_TIME,
        "authorization": (
            f"AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/{EXAMPLE_SCOPE}, "
            f"SignedHeaders={names}, Signature={signature}"
        ),
    }
    signed = {**headers, "x-amz-content-sha256": payload_hash, "x-amz-date": EXAMPLE_TIME}
    request = canonical_request(method, path, query, signed, payload_hash)
    text = f"AWS4-HMAC-SHA256\n{EXAMPLE_TIME}\n{EXAMPLE_SCOPE}\n{request_hash}"
    assert string_to_sign(EXAMPLE_TIME, EXAMPLE_SCOPE, request) == text


def test_published_signing_key() -> None:
    # "Examples of how to derive a signing key", AWS General Reference.
    key = signing_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20120215", "us-east-1", "iam")

    assert key.hex() == "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d"


def test_quoting_keeps_slashes_and_unreserved_characters_only() -> None:
    assert quote_path("/a/../b//c/~-._") == "/a/../b//c/~-._"
    assert quote_path("/ +%?#&=ü") == "/%20%2B%25%3F%23%26%3D%C3%BC"


def test_query_is_sorted_by_its_encoded_form() -> None:
    assert canonical_query([("b", "2"), ("a", "ü"), ("a", "z"), ("A", ""), ("~", "/")]) == ("A=&a=%C3%BC&a=z&b=2&~=%2F")
    assert canonical_query([]) == ""


def test_representation_hides_secret_and_token() -> None:
    credentials = Credentials("AKID", "hidden-secret", "hidden-token")

    for text in (repr(credentials), str(credentials), f"{credentials}", repr([credentials])):
        assert "AKID" in text
        assert "hidden" not in text


def test_each_day_and_each_set_of_keys_has_its_signing_key() -> None:
    signer = Signer("us-east-1")
    other = Credentials("OTHER", "other secret", "token")

    for credentials, timestamp in [
        (EXAMPLE, "20240228T235959Z"),
        (EXAMPLE, "20240229T000000Z"),
        (other, "20240229T000000Z"),
        (EXAMPLE._replace(secret_key="rotated"), "20240229T000001Z"),
    ]:
        arguments = (credentials, "GET", "/k", "", EXAMPLE_HOST, UNSIGNED_PAYLOAD, timestamp)
        assert signer.sign(*arguments) == Signer("us-east-1").sign(*arguments)


def test_a_session_token_is_sent_in_its_own_header() -> None:
    signer = Signer("us-west-2", "s3express", token_header="x-amz-s3session-token")

    credentials = EXAMPLE._replace(token="T")
    added = signer.sign(credentials, "GET", "/k", "", EXAMPLE_HOST, UNSIGNED_PAYLOAD, EXAMPLE_TIME)

    assert added["x-amz-s3session-token"] == "T"
    assert "x-amz-security-token" not in added
    assert "/20130524/us-west-2/s3express/aws4_request" in added["authorization"]
    assert ";x-amz-s3session-token," in added["authorization"]


def test_headers_are_not_modified() -> None:
    headers = dict(EXAMPLE_HOST)

    Signer("us-east-1").sign(EXAMPLE, "GET", "/k", "", headers, UNSIGNED_PAYLOAD, EXAMPLE_TIME)

    assert headers == EXAMPLE_HOST


class FixedTimeAuth(S3SigV4Auth):
    """botocore's signer, at the time that the request's context names."""

    def add_auth(self, request: AWSRequest) -> None:
        self._modify_request_before_signing(request)
        text = self.string_to_sign(request, self.canonical_request(request))
        self._inject_signature_to_request(request, self.signature(text, request))


HOST = "bucket.s3.example.com"
TRICKY_KEYS = [
    " ",
    ".",
    "..",
    "a/../b",
    "//",
    "a//b/",
    "~",
    "%",
    "%20",
    "+",
    "a b+c",
    "клю/ü",
    "?x=1#y",
    "\x01",
]
KEYS = st.one_of(st.sampled_from(TRICKY_KEYS), st.text(min_size=1, max_size=30))
TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
PARAMETER_NAMES = st.sampled_from(["prefix", "list-type", "uploads", "partNumber", "x-id", "Zz", "delimiter"])
QUERIES = st.dictionaries(PARAMETER_NAMES, st.text(max_size=12), max_size=5)
HEADER_NAMES = st.sampled_from(["range", "if-match", "content-type", "content-md5", "x-amz-acl", "x-amz-meta-a"])
HEADER_VALUES = st.lists(TEXT, min_size=1, max_size=3).map("  ".join)
TOKENS = st.one_of(st.none(), TEXT)


@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE"]),
    key=KEYS,
    query=QUERIES,
    headers=st.dictionaries(HEADER_NAMES, HEADER_VALUES, max_size=4),
    body=st.binary(max_size=20),
    credentials=st.builds(Credentials, TEXT, TEXT, TOKENS),
    scope=st.tuples(
        st.sampled_from(["20240101T000000Z", "20241231T235959Z"]),
        st.sampled_from(["us-east-1", "eu-central-1", "cn-north-1"]),
    ),
)
def test_signature_is_botocores(
    method: str,
    key: str,
    query: dict[str, str],
    headers: dict[str, str],
    body: bytes,
    credentials: Credentials,
    scope: tuple[str, str],
) -> None:
    timestamp, region = scope
    path, query_string = "/" + quote_path(key), canonical_query(query.items())
    url = f"https://{HOST}{path}" + (f"?{query_string}" if query_string else "")
    oracle = AWSRequest(method, url, headers=headers, data=body)
    oracle.context["timestamp"] = timestamp
    FixedTimeAuth(BotocoreCredentials(*credentials), "s3", region).add_auth(oracle)

    signed_headers = {"host": HOST, **headers}
    payload_hash = hashlib.sha256(body).hexdigest()
    added = Signer(region).sign(credentials, method, path, query_string, signed_headers, payload_hash, timestamp)

    assert unquote(path) == "/" + key
    assert {name: oracle.headers[name] for name in added} == added
    assert ("x-amz-security-token" in added) == (credentials.token is not None)


@given(key=KEYS)
def test_path_is_botocores(key: str) -> None:
    assert quote_path(key) == percent_encode(key, safe="/~")


@given(params=st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=5))
def test_query_is_botocores(params: list[tuple[str, str]]) -> None:
    oracle = AWSRequest("GET", f"https://{HOST}/", params=params)

    auth = S3SigV4Auth(BotocoreCredentials("a", "b"), "s3", "us-east-1")

    assert canonical_query(params) == auth.canonical_query_string(oracle)
