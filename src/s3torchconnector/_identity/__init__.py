"""Identity: credentials, endpoints, and signatures (SigV4).

Credentials and endpoints come from botocore, which is imported only if it is needed, and never on the path of a
request. The signature is computed here, by pure functions.
"""

from typing import TYPE_CHECKING

from s3torchconnector._identity._credentials import (
    NO_CREDENTIALS_ADVICE,
    CredentialsProvider,
    credentials_provider,
)
from s3torchconnector._identity._endpoint_url import Endpoint
from s3torchconnector._identity._endpoints import EndpointResolver
from s3torchconnector._identity._found_credentials import FoundCredentials, refuse_unsendable
from s3torchconnector._identity._lookup_failures import lookup_attempts
from s3torchconnector._identity._sigv4 import (
    EMPTY_SHA256,
    UNSIGNED_PAYLOAD,
    Credentials,
    Signature,
    Signer,
    canonical_query,
    canonical_request,
    quote_path,
    signing_key,
    string_to_sign,
)
from s3torchconnector._late_imports import names_from

if TYPE_CHECKING:
    from s3torchconnector._identity._sigv4a import AsymmetricSignature, AsymmetricSigner
    from s3torchconnector._identity._trust import Bundle, ca_bundle

__all__ = [
    "EMPTY_SHA256",
    "NO_CREDENTIALS_ADVICE",
    "UNSIGNED_PAYLOAD",
    "AsymmetricSignature",
    "AsymmetricSigner",
    "Bundle",
    "Credentials",
    "CredentialsProvider",
    "Endpoint",
    "EndpointResolver",
    "FoundCredentials",
    "Signature",
    "Signer",
    "ca_bundle",
    "canonical_query",
    "canonical_request",
    "credentials_provider",
    "lookup_attempts",
    "quote_path",
    "refuse_unsendable",
    "signing_key",
    "string_to_sign",
]

__getattr__ = names_from(
    __name__,
    {
        "AsymmetricSignature": "_sigv4a",
        "AsymmetricSigner": "_sigv4a",
        "Bundle": "_trust",
        "ca_bundle": "_trust",
    },
)
