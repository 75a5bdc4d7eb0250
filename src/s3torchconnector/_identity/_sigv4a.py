"""AWS Signature Version 4A, for requests that may go to any of several regions: those of Multi-Region Access Points.

The signed text is that of Signature Version 4 (``_sigv4``), with ``x-amz-region-set`` in place of a region. The
signature is ECDSA on P-256, by a key derived from the secret key, so it comes from the native code of awscrt (0.1 ms).
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.util import find_spec
from typing import Any, NamedTuple

from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._identity._sigv4 import Credentials
from s3torchconnector._late_imports import no_fork

REGION_SET_HEADER = "x-amz-region-set"
_EPOCH_FORMAT = "%Y%m%dT%H%M%SZ"


class AsymmetricSignature(NamedTuple):
    """A signature without the path, as ``_sigv4.Signature``."""

    headers: dict[str, str]
    credentials: Credentials
    region_set: str
    service: str
    method: str
    query: str
    signed: Mapping[str, str]
    payload_hash: str
    timestamp: str

    def __repr__(self) -> str:
        return f"AsymmetricSignature(headers={sorted(self.headers)}, ...)"

    def authorization(self, path: str) -> str:
        """The header that signs the request for ``path``, which is encoded (``quote_path``)."""
        auth, http = _awscrt()
        keys = self.credentials
        config = auth.AwsSigningConfig(
            algorithm=auth.AwsSigningAlgorithm.V4_ASYMMETRIC,
            credentials_provider=auth.AwsCredentialsProvider.new_static(keys.access_key, keys.secret_key, keys.token),
            region=self.region_set,
            service=self.service,
            date=datetime.strptime(self.timestamp, _EPOCH_FORMAT).replace(tzinfo=timezone.utc),
            use_double_uri_encode=False,  # S3 encodes once, and normalises nothing
            should_normalize_uri_path=False,
            signed_body_value=self.payload_hash,
            signed_body_header_type=auth.AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256,
        )
        target = f"{path}?{self.query}" if self.query else path
        request = http.HttpRequest(self.method, target, http.HttpHeaders(list(self.signed.items())))
        signed: str = auth.aws_sign_request(request, config).result().headers.get("Authorization")
        return signed


class AsymmetricSigner:
    """Signs requests for a set of regions; safe to share between threads. See ``_sigv4.Signer``.

    Args:
        region_set: regions with commas between them, or ``*`` for all.
        service: the signing name.

    Raises:
        S3ConfigurationError: awscrt is not installed.
    """

    def __init__(self, region_set: str, service: str = "s3") -> None:
        if find_spec("awscrt") is None:
            raise S3ConfigurationError(
                "requests to a Multi-Region Access Point are signed with SigV4A, which needs the package awscrt: "
                "from the checkout, pip install '.[checksums]', or name a bucket or an access point of one region "
                "instead"
            )
        self._region_set = region_set
        self._service = service

    def prepare(
        self,
        credentials: Credentials,
        method: str,
        query: str,
        headers: Mapping[str, str],
        payload_hash: str,
        timestamp: str,
    ) -> AsymmetricSignature:
        """Do the part of a signature that does not depend on the path; see ``_sigv4.Signer``."""
        added = {
            "x-amz-content-sha256": payload_hash,
            "x-amz-date": timestamp,
            REGION_SET_HEADER: self._region_set,
        }
        if credentials.token:
            added["x-amz-security-token"] = credentials.token
        return AsymmetricSignature(
            added, credentials, self._region_set, self._service, method, query, dict(headers), payload_hash, timestamp
        )


def _awscrt() -> tuple[Any, Any]:
    with no_fork:
        from awscrt import auth, http
    return auth, http
