"""Backblaze B2: every request with a checksum header is refused, also those that read.

https://www.backblaze.com/docs/cloud-storage-s3-compatible-api, https://github.com/home-assistant/core/issues/143995,
https://github.com/vatesfr/xen-orchestra/issues/8358 (``x-amz-checksum-mode``)
"""

from __future__ import annotations

from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.stand_ins.aws_like import AwsLike


class Backblaze(AwsLike):
    def refuse(self, request: ReceivedRequest) -> bytes | None:
        header = next((name for name in request.headers if name.startswith("x-amz-checksum")), None)
        if header is None:
            return None
        if request.method == "HEAD":
            return response(400)
        return s3_error(400, "InvalidArgument", f"Unsupported header '{header}' received for this API call.")
