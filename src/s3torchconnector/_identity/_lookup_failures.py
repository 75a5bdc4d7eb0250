"""Whether a failed look-up of credentials may succeed if it is repeated."""

from __future__ import annotations

import os
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from s3torchconnector._errors import S3CredentialsError
from s3torchconnector._late_imports import no_fork

if TYPE_CHECKING:
    from botocore.session import Session

_FEW = 3  # attempts if a program, a function or a document was at fault: that may pass, but mostly has to be fixed
_THROTTLING_CODES = ("Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException")
_SECONDS = 1.0  # to connect to the metadata service, and again to wait for its response
_ROLES = "/latest/meta-data/iam/security-credentials/"
_IPV4, _IPV6 = "http://169.254.169.254", "http://[fd00:ec2::254]"


def lookup_attempts(error: S3CredentialsError, most: int) -> int:
    """How many attempts a look-up that failed with ``error`` may have, at most ``most``."""
    cause = error.__cause__
    if cause is None:
        return 1
    with no_fork:
        from botocore import exceptions as aws

    if isinstance(cause, (TimeoutError, ConnectionError, aws.HTTPClientError, aws.MetadataRetrievalError)):
        return most
    if isinstance(cause, aws.ClientError):  # of AWS STS or SSO
        status = cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = cause.response.get("Error", {}).get("Code")
        return most if status >= 500 or status == 429 or code in _THROTTLING_CODES else 1
    is_of_settings = isinstance(cause, aws.BotoCoreError) and not isinstance(cause, aws.CredentialRetrievalError)
    return 1 if is_of_settings else min(_FEW, most)


def metadata_service_is_late(session: Session) -> bool:
    """Whether there is an EC2 instance metadata service that did not say that it has no credentials.

    botocore does not distinguish a slow service from none at all. If there is none, nothing should wait for it.
    """
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return False
    ipv6 = str(session.get_config_variable("ec2_metadata_service_endpoint_mode")).lower() == "ipv6"
    where = urlsplit(session.get_config_variable("ec2_metadata_service_endpoint") or (_IPV6 if ipv6 else _IPV4))
    connection = HTTPConnection(where.hostname or "", where.port or 80, timeout=_SECONDS)
    try:
        connection.connect()
    except OSError:
        return False
    try:
        connection.request("GET", where.path.rstrip("/") + _ROLES)
        response = connection.getresponse()
        return not (response.status == 404 or (response.status == 200 and not response.read().strip()))
    except (OSError, HTTPException):
        return True
    finally:
        connection.close()
