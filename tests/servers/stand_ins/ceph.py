"""The gateway of Ceph 16.2 (Pacific), as it answered side by side with this package.

Its source is https://github.com/ceph/ceph/tree/v16.2.15/src/rgw (``rgw_rest_s3.cc``, ``rgw_op.cc``).

- ListMultipartUploads encodes keys if asked to, and does not say so.
- ``x-amz-checksum-*`` is ignored; Content-MD5 is compared.
- ``If-None-Match`` holds for PutObject and is ignored by CompleteMultipartUpload.
- Entries of a listing end with ``<Type>Normal</Type>``, and apostrophes of keys are ``&apos;``.
- Control characters of keys are written as character references, which XML does not allow.
- Requests are named ``tx...``.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from tests.servers.http_messages import ReceivedRequest
from tests.servers.memory_s3 import Stored
from tests.servers.stand_ins.aws_like import AwsLike, with_headers


class Ceph16(AwsLike):
    def answer(self, request: ReceivedRequest, owner: str = "") -> bytes:
        return with_headers(super().answer(request, owner), {"x-amz-request-id": "tx000000000000000000001-0-0-default"})

    def told(self, request: ReceivedRequest) -> dict[str, str]:
        return {}

    def refuse_completion(self, *_: object) -> None:
        return None

    def checksums_of(self, *_: object) -> dict[str, str]:
        return {}

    def holds(self, request: ReceivedRequest, there: Stored | None) -> bool:
        return request.method == "POST" or super().holds(request, there)

    def entry(self, key: str, there: Stored, time: str) -> str:
        etag = there.etag.replace('"', "&quot;")
        fields = f"<LastModified>{time}</LastModified><ETag>{etag}</ETag><Size>{len(there.data)}</Size>"
        name = quote(key, safe="!$'()*-._~|\\").replace("'", "&apos;")
        return f"<Contents><Key>{name}</Key>{fields}<StorageClass>STANDARD</StorageClass><Type>Normal</Type></Contents>"

    def _list_uploads(self, query: dict[str, str]) -> bytes:
        answer = super()._list_uploads(query).replace(b"<EncodingType>url</EncodingType>", b"")
        head, _, body = answer.partition(b"\r\n\r\n")
        body = re.sub(rb"[\x01-\x1f]", lambda found: b"&#x%02x;" % found[0][0], body)
        head = re.sub(rb"content-length: \d+", b"content-length: %d" % len(body), head)
        return head + b"\r\n\r\n" + body
