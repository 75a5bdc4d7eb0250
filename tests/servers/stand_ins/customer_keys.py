"""A bucket of AWS whose objects are encrypted with keys of the customer (SSE-C).

https://docs.aws.amazon.com/AmazonS3/latest/userguide/ServerSideEncryptionCustomerKeys.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/specifying-s3-c-encryption.html
"""

from __future__ import annotations

import base64
import hashlib

from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.memory_s3 import Stored
from tests.servers.stand_ins.aws_like import AwsLike, MultipartUpload

HEADER = "x-amz-server-side-encryption-customer-"
SOURCE = "x-amz-copy-source-server-side-encryption-customer-"


class CustomerKeys(AwsLike):
    """Demands the key of an object for each request that reads, stores, copies or completes it. ETags are no MD5.

    Attributes:
        keys: the MD5 of each object's key, in base64; those that are not in it are encrypted otherwise.
        demanded: whether objects must be encrypted so.
        blocked: whether no more may be, as in new buckets, see blocking-unblocking-s3-c-encryption-gpb.html.
    """

    def __init__(self, *, demanded: bool = True) -> None:
        super().__init__()
        self.blocked = False
        self.keys: dict[str, str] = {}
        self.demanded = demanded

    def refuse(self, request: ReceivedRequest) -> bytes | None:
        key = request.path.lstrip("/").partition("/")[2]
        if request.method == "DELETE" or "tagging" in request.query:
            return None
        upload = self.uploads.get(request.query.get("uploadId", ""))
        if request.method in ("GET", "HEAD"):
            refusal = self._compare(request, HEADER, self.keys.get(key)) if key in self.objects else None
            return response(int(refusal[9:12])) if refusal and request.method == "HEAD" else refusal
        if "x-amz-copy-source" in request.headers:
            source, there = self._source(request)
            if isinstance(there, Stored) and (refusal := self._compare(request, SOURCE, self.keys.get(source))):
                return refusal
        if "uploadId" not in request.query:
            named = request.headers.get(f"{HEADER}key-md5")
            if (named is None and self.demanded) or (named is not None and self.blocked):
                return s3_error(403, "AccessDenied", "Access Denied")
            return self._compare(request, HEADER, named)
        return None if upload is None else self._compare(request, HEADER, _md5_of(upload))

    def _compare(self, request: ReceivedRequest, prefix: str, md5: str | None) -> bytes | None:
        """The refusal of a request whose key is not the one with this MD5, or not well formed."""
        names = [f"{prefix}{name}" for name in ("algorithm", "key", "key-md5")]
        given = [request.headers.get(name) for name in names]
        if md5 is None:
            text = "The encryption parameters are not applicable to this object."
            return s3_error(400, "InvalidRequest", text) if any(given) else None
        if not all(given):
            return s3_error(
                400,
                "InvalidRequest",
                "The object was stored using a form of Server Side Encryption. The correct parameters must be provided "
                "to retrieve the object.",
            )
        key = base64.b64decode(given[1] or "")
        told = base64.b64encode(hashlib.md5(key).digest()).decode()
        if given[0] != "AES256" or len(key) != 32 or told != given[2]:
            return s3_error(400, "InvalidArgument", f"The secret key {given[1]} was invalid.")
        return s3_error(403, "AccessDenied", "Access Denied") if told != md5 else None

    def _store(self, request: ReceivedRequest, key: str, data: bytes, etag: str, checksums: dict[str, str]) -> str:
        named = request.headers.get(f"{HEADER}key-md5")
        self.keys.pop(key, None)
        if named is not None:
            self.keys[key] = named
            _, dash, count = etag.partition("-")
            etag = hashlib.md5(f"{etag} {self.now}".encode()).hexdigest() + dash + count
        return super()._store(request, key, data, etag, checksums)


def _md5_of(upload: MultipartUpload) -> str | None:
    return upload.request.headers.get(f"{HEADER}key-md5")
