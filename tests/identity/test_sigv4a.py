"""SigV4A: each signature verifies with the public key that AWS derives from the access key and the secret."""

from __future__ import annotations

import hashlib
import hmac
import os
import sys

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import example, given, settings
from hypothesis import strategies as st

from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._identity import (
    UNSIGNED_PAYLOAD,
    AsymmetricSigner,
    Credentials,
    canonical_query,
    canonical_request,
    quote_path,
)

ALGORITHM = "AWS4-ECDSA-P256-SHA256"
KEYS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a-token")
TIME = "20260102T030405Z"
TEXTS = st.text(st.characters(codec="utf-8", min_codepoint=32), max_size=20)


def public_key(keys: Credentials) -> ec.EllipticCurvePublicKey:
    """The derivation of https://github.com/aws-samples/sigv4a-signing-examples: NIST SP 800-108 in counter mode."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    for counter in range(1, 255):
        text = b"\0\0\0\1" + ALGORITHM.encode() + b"\0" + keys.access_key.encode() + bytes([counter]) + b"\0\0\1\0"
        candidate = int.from_bytes(hmac.digest(b"AWS4A" + keys.secret_key.encode(), text, "sha256"), "big")
        if candidate <= order - 2:
            return ec.derive_private_key(candidate + 1, ec.SECP256R1()).public_key()
    raise AssertionError("no key")


def verify(
    keys: Credentials, authorization: str, method: str, path: str, query: str, headers: dict[str, str], payload: str
) -> None:
    """Raise ``InvalidSignature`` if the header does not sign this request."""
    algorithm, _, rest = authorization.partition(" ")
    fields = dict(field.split("=", 1) for field in rest.split(", "))
    scope = f"{headers['x-amz-date'][:8]}/s3/aws4_request"
    assert (algorithm, fields["Credential"]) == (ALGORITHM, f"{keys.access_key}/{scope}")
    assert fields["SignedHeaders"] == ";".join(sorted(headers))
    digest = hashlib.sha256(canonical_request(method, path, query, headers, payload).encode()).hexdigest()
    text = f"{ALGORITHM}\n{headers['x-amz-date']}\n{scope}\n{digest}"
    public_key(keys).verify(bytes.fromhex(fields["Signature"]), text.encode(), ec.ECDSA(SHA256()))


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from(["GET", "PUT", "HEAD", "POST", "DELETE"]),
    TEXTS,
    st.lists(st.tuples(TEXTS.filter(bool), TEXTS), max_size=3),
)
@example("GET", "a/../b//c d+e", [("prefix", "a b/+é"), ("list-type", "2"), ("delimiter", "")])
def test_a_signature_verifies(method: str, key: str, query: list[tuple[str, str]]) -> None:
    headers = {"host": "m.mrap.accesspoint.s3-global.amazonaws.com", "range": "bytes=0-1", "x-amz-meta-a": "b  c"}
    text, path = canonical_query(query), "/" + quote_path(key)
    signature = AsymmetricSigner("*").prepare(KEYS, method, text, headers, UNSIGNED_PAYLOAD, TIME)
    assert signature.headers == {
        "x-amz-content-sha256": UNSIGNED_PAYLOAD,
        "x-amz-date": TIME,
        "x-amz-region-set": "*",
        "x-amz-security-token": "a-token",
    }
    signed = {**headers, **signature.headers}
    verify(KEYS, signature.authorization(path), method, path, text, signed, UNSIGNED_PAYLOAD)
    with pytest.raises(InvalidSignature):
        verify(KEYS, signature.authorization(path), method, path + "x", text, signed, UNSIGNED_PAYLOAD)


def test_keys_without_a_token_send_none() -> None:
    signature = AsymmetricSigner("us-*").prepare(KEYS._replace(token=None), "GET", "", {"host": "h"}, "x", TIME)
    assert sorted(signature.headers) == ["x-amz-content-sha256", "x-amz-date", "x-amz-region-set"]
    assert "token" not in repr(signature)
    assert KEYS.secret_key not in repr(signature)
    verify(KEYS, signature.authorization("/"), "GET", "/", "", {"host": "h", **signature.headers}, "x")


def test_without_awscrt_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "awscrt", None)
    monkeypatch.setattr("s3torchconnector._identity._sigv4a.find_spec", lambda name: None)
    with pytest.raises(S3ConfigurationError, match=r"needs the package awscrt.*'\.\[checksums\]'"):
        AsymmetricSigner("*")


def test_a_forked_child_signs() -> None:
    signer = AsymmetricSigner("*")
    signer.prepare(KEYS, "GET", "", {"host": "h"}, "x", TIME).authorization("/")
    pid = os.fork()
    if pid == 0:
        signature = signer.prepare(KEYS, "GET", "", {"host": "h"}, "x", TIME)
        verify(KEYS, signature.authorization("/"), "GET", "/", "", {"host": "h", **signature.headers}, "x")
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
