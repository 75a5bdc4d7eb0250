"""Google Cloud Storage: checksum headers break the signature, and objects stored compressed are decompressed.

- Any ``x-amz-checksum-*`` of a request: 403 SignatureDoesNotMatch "Invalid argument."
  https://github.com/boto/boto3/issues/4400, https://github.com/EnterpriseDB/barman/issues/1112
- DeleteObjects: 400 InvalidArgument "Cannot create buckets using a POST." https://github.com/minio/mc/issues/2398
- An object with ``Content-Encoding: gzip`` is sent decompressed and whole, whatever range is asked for, unless the
  request says ``Accept-Encoding: gzip``, which must not be signed, since Google's front end changes it.
  https://cloud.google.com/storage/docs/transcoding, https://github.com/apache/opendal/issues/5070
"""

from __future__ import annotations

import gzip

from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.stand_ins.aws_like import AwsLike, with_headers


class Gcs(AwsLike):
    """See the module.

    Attributes:
        compressed: the keys of objects that have ``Content-Encoding: gzip``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.compressed: set[str] = set()

    def refuse(self, request: ReceivedRequest) -> bytes | None:
        signed = request.headers.get("authorization", "").partition("SignedHeaders=")[2].partition(",")[0].split(";")
        if "accept-encoding" not in signed and not any(name.startswith("x-amz-checksum") for name in request.headers):
            return None
        return (
            response(403) if request.method == "HEAD" else s3_error(403, "SignatureDoesNotMatch", "Invalid argument.")
        )

    def _delete_many(self, request: ReceivedRequest) -> bytes:
        details = "Cannot create buckets using a POST."
        return s3_error(400, "InvalidArgument", "Invalid argument.", Details=details)

    def _read(self, request: ReceivedRequest, key: str, owner: str) -> bytes:
        if key not in self.compressed:
            return super()._read(request, key, owner)
        stored = {"x-goog-stored-content-encoding": "gzip"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return with_headers(super()._read(request, key, owner), {"content-encoding": "gzip", **stored})
        there = self.objects[key]
        data = gzip.decompress(there.data)
        headers = {
            "ETag": there.etag,
            "transfer-encoding": "chunked",
            "warning": "214 UploadServer gunzipped",
            **stored,
        }
        body = b"" if request.method == "HEAD" else b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
        return response(200, body, headers)
