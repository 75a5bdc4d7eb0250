"""Error responses to exceptions: from status and S3 code to a type that a program can handle, with advice in words."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from s3torchconnector._errors import (
    S3AccessDeniedError,
    S3ConfigurationError,
    S3Exception,
    S3NotFoundError,
    S3ObjectArchivedError,
    S3ObjectChangedError,
    S3ObjectExistsError,
    S3ProtocolError,
    S3ServiceError,
    S3ThrottledError,
    S3WrongRegionError,
)
from s3torchconnector._wire._documents import ErrorDocument, parse, parse_error, parse_http_date
from s3torchconnector._wire._operations import VERSION_ID, Request
from s3torchconnector._wire._proxy import CREDENTIALS_ADVICE
from s3torchconnector._wire._response import Response, read_document
from s3torchconnector._wire._retry import THROTTLING_CODES

_MISSING_CODES = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchUpload", "NoSuchVersion", "NotFound"})
# The second: another write to the key was still under way when the attempts were used up.
_EXISTS_CODES = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
REGION_CODES = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "TemporaryRedirect"}
)
CREDENTIAL_CODES = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "InvalidAccessKeyId", "SignatureDoesNotMatch",
     "TokenRefreshRequired", "RequestExpired"}
)  # fmt: skip
EXPIRED_CODES = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"})

_FULL_CODES = frozenset({"QuotaExceeded"})  # which Ceph's gateway sends with 403

ADVICE = {
    "InvalidAccessKeyId": "S3 does not know this access key: check which credentials are in use.",
    "SignatureDoesNotMatch": "S3 computed another signature: check the secret key, and that no proxy changes requests.",
    "RequestTimeTooSkewed": "This machine's clock is wrong by more than 15 minutes: set it.",
    "NoSuchUpload": "A lifecycle rule or another program aborted the upload in the meantime: write the object again.",
    "BadDigest": "The server received different bytes than were sent: something on the way changed them.",
    "QuotaExceeded": "The quota of the bucket or of its owner is used up: delete objects, or have it raised.",
    "UserSuspended": "The owner of this access key was suspended: the server's administrator can tell why.",
    "EntityTooLarge": "The server accepts no part or no object of this size: lower part_size in S3ClientConfig.",
}

# What a policy can demand of a request that stores an object: the header, the option, and the action that it needs.
_OPTIONS = (
    ("x-amz-server-side-encryption", "encryption", None),
    ("x-amz-acl", "acl", "s3:PutObjectAcl"),
    ("x-amz-tagging", "tags", "s3:PutObjectTagging"),
    ("x-amz-storage-class", "storage_class", None),
)
_CARRYING_OPTIONS = ("PutObject", "CreateMultipartUpload", "CopyObject")
_KMS_ACTIONS = "kms:GenerateDataKey and kms:Decrypt of the KMS key"

_DELETED_ADVICE = "Its older versions can still be read, by their version_id"
_ARCHIVED_ADVICE = "You can restore it before reading, or have from_prefix(skip_archived=True) leave such objects out"
_TIER_ADVICE = (
    "You can restore it to the frequent access tier of S3 Intelligent-Tiering (RestoreObject) before reading. "
    "skip_archived=True does not leave such objects out, since listings do not show this; head_object does: "
    "https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects.html"
)
_ENCRYPTED = "Server Side Encryption"
_KEY_ADVICE = (
    "If the object is encrypted with a key of the customer (SSE-C), give the key as customer_key in S3ClientConfig."
)
_NOT_ENCRYPTED = "encryption parameters are not applicable"
_NO_KEY_ADVICE = "It is not encrypted with a key of the customer (SSE-C): leave customer_key out of S3ClientConfig."
_TOO_LARGE = "larger than the maximum allowable size"
_SAME_LENGTH = "must have the same length"
_EQUAL_PARTS_ADVICE = (
    "Set equal_parts=True in S3ClientConfig, and part_size so that 10,000 parts hold the object: this server takes no "
    "uploads whose parts grow."
)

_STATUS_OF_LATE_ERRORS = {
    "AccessDenied": 403, "InternalError": 500, "NoSuchUpload": 404, "ServiceUnavailable": 503, "SlowDown": 503,
}  # fmt: skip


def demands_equal_parts(error: S3ServiceError) -> bool:
    """Whether a completion was refused because the parts differ in length, as Cloudflare R2 does."""
    return error.code == "InvalidPart" and _SAME_LENGTH in error.message


def is_too_large_to_copy(error: S3ServiceError) -> bool:
    """Whether a copy was refused because one request does not copy so many bytes."""
    return error.code == "EntityTooLarge" or error.status == 413 or _TOO_LARGE in error.message


def service_error(request: Request, status: int, headers: Mapping[str, str], body: bytes) -> S3Exception:
    """The exception for a response with an error status. ``body`` may be empty (HEAD)."""
    if status == 407:
        return S3ConfigurationError(
            f"{request}: the proxy responded with HTTP 407: {CREDENTIALS_ADVICE}", status=status
        )
    document = parse_error(body) if body else ErrorDocument("", "")
    if document is None and status < 500 and status != 429:  # which gateways send, too
        error: S3Exception = S3ProtocolError(
            f"{request}: the endpoint responded with HTTP {status} and a body that is not S3's "
            f"(it begins with {body[:60]!r}). Is the endpoint an S3 server?"
        )
    else:
        document = document or ErrorDocument("", "")
        error = _classified(request, status, headers, document)
        error.code = document.code or None
    error.status, error.operation = status, request.operation
    error.request_id = headers.get("x-amz-request-id") or (document.request_id if document else None)
    error.retry_after = retry_after(headers)
    return error


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait (RFC 9110, section 10.2.3); None if it does not, or if it is malformed."""
    text = headers.get("retry-after")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        moment = parse_http_date(text)
        # By the server's clock if it sends a date: the local clock may be wrong.
        seconds = moment - (parse_http_date(headers.get("date", "")) or time.time()) if moment else 0.0
    return seconds if 0.0 < seconds < math.inf else None


def refuse_late_error(request: Request, response: Response) -> bytes:
    """The document of an operation whose response may be 200 with an error in it (copies, completed uploads).

    Raises:
        S3Exception: the document is an error, or no XML.
    """
    body = read_document(response).strip()
    if not body:
        raise S3ProtocolError("the response has no document")
    document = parse_error(body)
    if document is None:
        parse(body)  # raises for a web page, which is no success either
        return body
    raise late_error(request, response.headers, body)


def late_error(request: Request, headers: Mapping[str, str], body: bytes) -> S3Exception:
    """The exception for an error document in a response of status 200."""
    document = parse_error(body) or ErrorDocument("", "")
    return service_error(request, _STATUS_OF_LATE_ERRORS.get(document.code, 400), headers, body)


def _classified(request: Request, status: int, headers: Mapping[str, str], document: ErrorDocument) -> S3Exception:
    code = document.code
    facts = " ".join(filter(None, [f"{request}: HTTP {status}", code]))
    if document.message:
        facts += f": {document.message.removesuffix('.')}"
    region = headers.get("x-amz-bucket-region") or document.region
    if code in REGION_CODES or (status in (301, 307, 400) and region and not code):
        return _wrong_region(facts, region)
    is_deleted = headers.get("x-amz-delete-marker") == "true"
    if is_deleted or code in _MISSING_CODES or status == 404:
        what = _deleted(request, headers) if is_deleted else _missing(request, code)
        return S3NotFoundError(f"Service error: {what}: {facts}{_missing_advice(request, code)}")
    if "if-match" in request.headers and request.method in ("PUT", "POST") and (status == 412 or code in _EXISTS_CODES):
        return S3ObjectChangedError(f"Service error: another writer has replaced the object: {facts}")
    if status == 412 and "if-match" in request.headers:
        return S3ObjectChangedError(
            f"Service error: the object changed while it was being read: {facts}. No byte of the new version was "
            "returned. Open the object again to read it"
        )
    if "if-none-match" in request.headers and (status == 412 or code in _EXISTS_CODES):
        return S3ObjectExistsError(
            f"Service error: the object exists, and overwrite=False does not replace it: {facts}"
        )
    if code in THROTTLING_CODES or status in (429, 503):
        return S3ThrottledError(f"Service error: S3 asks to slow down: {facts}")
    if code == "InvalidObjectState":
        return _archived(facts, document)
    if (code in CREDENTIAL_CODES or status in (401, 403)) and code not in _FULL_CODES:
        advice = f"{_access_advice(request, code)}{_doctor(request)}"
        return S3AccessDeniedError(f"Service error: access denied: {facts}. {advice}")
    advice = _advice(request, status, code, document.message)
    return S3ServiceError(f"Service error: {facts}" + (f". {advice}" if advice else ""))


def _advice(request: Request, status: int, code: str, message: str) -> str:
    if _SAME_LENGTH in message:
        return _EQUAL_PARTS_ADVICE
    if (code == "InvalidRequest" and _ENCRYPTED in message) or (status == 400 and request.method == "HEAD"):
        return _KEY_ADVICE
    return _NO_KEY_ADVICE if _NOT_ENCRYPTED in message else ADVICE.get(code, "")


def _wrong_region(facts: str, region: str | None) -> S3WrongRegionError:
    where = f"the bucket is in region {region}: create the client with region={region!r}" if region else (
        "the bucket is in another region than this client: create the client with the bucket's region"
    )  # fmt: skip
    error = S3WrongRegionError(f"Service error: {where}: {facts}")
    error.region = region
    return error


def _archived(facts: str, document: ErrorDocument) -> S3ObjectArchivedError:
    tier = document.access_tier
    where, advice = ("archived", _ARCHIVED_ADVICE) if tier is None else (f"in the archive tier {tier}", _TIER_ADVICE)
    error = S3ObjectArchivedError(f"Service error: the object is {where}: {facts}. {advice}")
    error.storage_class, error.access_tier = document.storage_class, tier
    return error


def _deleted(request: Request, headers: Mapping[str, str]) -> str:
    """What a delete marker is, in a bucket that keeps versions.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/DeleteMarker.html
    """
    if any(name == VERSION_ID for name, _ in request.query):
        return "This version is a delete marker, which has no content"
    marker = headers.get("x-amz-version-id", "")
    latest = f"; its latest version, {marker}, is a delete marker" if marker.isprintable() and marker else ""
    return f"{_missing(request, '')}: it was deleted{latest}. {_DELETED_ADVICE}"


def _missing(request: Request, code: str) -> str:
    if code == "NoSuchBucket":
        return "The bucket does not exist"
    if code == "NoSuchVersion":
        return "The version does not exist"
    if code == "NoSuchUpload":
        return "The multipart upload does not exist"
    if request.operation in ("HeadObject", "CopyObject"):  # the words of 1.5.0, which programs match
        return "The object was not found"
    return "The key does not exist" if request.key else "The bucket does not exist"


def _missing_advice(request: Request, code: str) -> str:
    if code in ADVICE:
        return f". {ADVICE[code]}"
    if request.key.endswith("/"):
        return ". The key ends with '/', so it is probably a prefix: list it, or name an object below it"
    return ""


def _access_advice(request: Request, code: str) -> str:
    if code in ADVICE:
        return ADVICE[code]
    if code in EXPIRED_CODES or code == "InvalidToken":
        return "The credentials have expired, and refreshing them found no valid ones: renew them."
    actions = {
        "HeadObject": "s3:GetObject", "CopyObject": "s3:GetObject and s3:PutObject",
        "UploadPartCopy": "s3:GetObject and s3:PutObject", "ListObjectsV2": "s3:ListBucket",
        "CreateMultipartUpload": "s3:PutObject", "UploadPart": "s3:PutObject",
        "CompleteMultipartUpload": "s3:PutObject", "ListMultipartUploads": "s3:ListBucketMultipartUploads",
        "CreateSession": "s3express:CreateSession", "DeleteObjects": "s3:DeleteObject",
    }  # fmt: skip
    action = actions.get(request.operation, f"s3:{request.operation}")
    if request.operation in _CARRYING_OPTIONS:
        return _options_advice(request, action)
    if request.operation in ("UploadPart", "UploadPartCopy", "CompleteMultipartUpload"):
        return f"These credentials need {action}; and {_KMS_ACTIONS}, if the upload is encrypted by KMS."
    if request.operation == "ListObjectsV2":
        return (
            "These credentials need s3:ListBucket on the bucket itself, not on its objects. Without it, give the "
            "objects by name: from_objects, or a manifest."
        )
    if request.method in ("GET", "HEAD") and request.key:
        if any(name == VERSION_ID for name, _ in request.query):
            action = "s3:GetObjectVersion"
        advice = (
            f"These credentials need {action} on this object. If they have that, the object may not exist: S3 sends "
            "the same error for a missing key unless they have s3:ListBucket on the bucket as well."
        )
        # No reason is in a response to HEAD, which has no body.
        return advice if code else f"{advice} Or the keys are wrong: the response to {request.method} does not tell."
    return f"These credentials need {action}."


def _doctor(request: Request) -> str:
    return f" To find the reason: s3torch doctor s3://{request.bucket}/" if request.bucket else ""


def _options_advice(request: Request, action: str) -> str:
    """What a request needs that stores an object, and what a bucket's policy may demand of it.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html#mpuAndPermissions
    """
    carried = [name for header, name, _ in _OPTIONS if header in request.headers]
    lacking = [name for header, name, _ in _OPTIONS if header not in request.headers]
    needed = [action, *(need for header, _, need in _OPTIONS if need and header in request.headers)]
    if request.headers.get("x-amz-server-side-encryption", "").startswith("aws:kms"):
        needed.append(_KMS_ACTIONS)
    demands = [f"options that this request lacks ({', '.join(lacking)})"] if lacking else []
    demands += [f"other values of those it carries ({', '.join(carried)})"] if carried else []
    return (
        f"These credentials need {', '.join(needed)}. If they have that, a policy of the bucket may demand "
        f"{', or '.join(demands)}: set write_options in S3ClientConfig; or customer_key, for SSE-C."
    )
