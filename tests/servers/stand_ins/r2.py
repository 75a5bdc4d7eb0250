"""Cloudflare R2: all parts of an upload but the last have one length, and the last is no longer.

https://developers.cloudflare.com/r2/objects/multipart-objects/#limitations, https://github.com/apache/opendal/issues/2904
"""

from __future__ import annotations

from xml.etree import ElementTree

from tests.servers.http_messages import ReceivedRequest, s3_error
from tests.servers.stand_ins.aws_like import AwsLike, MultipartUpload, text_of


class R2(AwsLike):
    def refuse_completion(
        self, request: ReceivedRequest, upload: MultipartUpload, parts: list[ElementTree.Element]
    ) -> bytes | None:
        *others, last = (len(upload.parts[int(text_of(part, "PartNumber"))].data) for part in parts)
        if others and (len(set(others)) > 1 or last > others[0]):
            return s3_error(400, "InvalidPart", "All non-trailing parts must have the same length.")
        return super().refuse_completion(request, upload, parts)
