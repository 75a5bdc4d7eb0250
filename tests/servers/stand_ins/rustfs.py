"""RustFS, as it was in 2026-03: the checksum that it keeps of a multipart upload is not that of the object.

https://github.com/rustfs/rustfs/issues/2282
"""

from __future__ import annotations

from tests.servers.http_messages import ReceivedRequest
from tests.servers.stand_ins.aws_like import AwsLike, MultipartUpload


class RustFs(AwsLike):
    def checksums_of(self, request: ReceivedRequest, upload: MultipartUpload, data: bytes) -> dict[str, str]:
        return super().checksums_of(request, upload, data + b"what else was summed")
