"""s3rver 3.7: it responds to ranges of empty objects and to ranges from the end in its own way, and uploads cannot be
listed.

https://github.com/jamhall/s3rver (``lib/controllers/object.js``)
"""

from __future__ import annotations

from dataclasses import replace

from tests.servers.http_messages import Head, ReceivedRequest, response, s3_error
from tests.servers.stand_ins.aws_like import AwsLike


class S3rver(AwsLike):
    def _read(self, request: ReceivedRequest, key: str, owner: str) -> bytes:
        there = self.objects.get(key)
        if there is not None and not there.data and request.range is not None:
            return response(206, b"", {**there.headers, "Content-Range": "bytes 0-0/0"})
        if request.range is not None and request.range.startswith("bytes=-"):  # as if it were 0-N
            headers = {**request.headers, "range": request.range.replace("=-", "=0-")}
            request = replace(request, head=Head(request.head.first_line, headers, request.head.raw))
        return super()._read(request, key, owner)

    def _list(self, query: dict[str, str]) -> bytes:
        if "uploads" in query:
            return s3_error(
                501, "NotImplemented", "A header you provided implies functionality that is not implemented"
            )
        return super()._list(query)
