"""Directory buckets (S3 Express One Zone): prefixes end in a slash, and listings have no order and no restore status.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/s3-express-differences.html,
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html,
https://github.com/eclipse-store/store/issues/224
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime, timedelta, timezone

from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.stand_ins.aws_like import AwsLike


class Express(AwsLike):
    bucket = "bucket--usw2-az1--x-s3"

    def answer(self, request: ReceivedRequest, owner: str = "") -> bytes:
        if "x-amz-optional-object-attributes" in request.headers:
            return s3_error(501, "NotImplemented", "OptionalObjectAttributes is not supported for directory buckets")
        if "session" in request.query:
            end = datetime.now(timezone.utc) + timedelta(minutes=5)
            fields = {"SessionToken": "t", "SecretAccessKey": "s", "AccessKeyId": "A", "Expiration": f"{end:%FT%TZ}"}
            inner = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
            document = f"<CreateSessionResult><Credentials>{inner}</Credentials></CreateSessionResult>"
            return response(200, document.encode())
        return super().answer(request, owner)

    def _list(self, query: dict[str, str]) -> bytes:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        if (prefix and not prefix.endswith("/")) or delimiter not in ("", "/"):
            return s3_error(400, "InvalidRequest", "Prefix and delimiter of a directory bucket must end in '/'")
        if "start-after" in query:
            return s3_error(501, "NotImplemented", "StartAfter is not supported for directory buckets")
        answer = super()._list(query)
        if "uploads" in query:
            return answer
        head, _, body = answer.partition(b"\r\n\r\n")
        entries = re.findall(rb"<Contents>.*?</Contents>", body)
        entries.sort(key=lambda entry: hashlib.md5(entry[:60]).digest())
        unordered = iter(entries)
        return head + b"\r\n\r\n" + re.sub(rb"<Contents>.*?</Contents>", lambda _: next(unordered), body)
