"""A small S3 in memory, with the conditions of AWS and a clock that the test sets.

    s3 = MemoryS3()
    with ScriptedServer(handler=s3.answer) as server: ...

PutObject takes ``If-None-Match: *`` and ``If-Match``: 412 if they do not hold, 404 for ``If-Match`` of a missing key.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
With ``conditional=False`` it ignores both, as some servers do. No multipart uploads.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import formatdate
from urllib.parse import quote_plus
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from tests.servers.http_messages import ReceivedRequest, response, s3_error

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass(frozen=True)
class Stored:
    """An object: its bytes, its metadata, when it was stored, and by whom as far as the test knows."""

    data: bytes
    metadata: dict[str, str]
    time: int
    owner: str

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data).hexdigest()}"'

    @property
    def headers(self) -> dict[str, str]:
        return {"ETag": self.etag, "Last-Modified": formatdate(self.time, usegmt=True), **self.metadata}


class MemoryS3:
    """See the module.

    Attributes:
        objects: by key; all requests are of one bucket.
        now: its clock, in seconds since 1970; storing an object takes ``seconds_to_store``.
        requests: all requests so far.
    """

    def __init__(self, *, conditional: bool = True) -> None:
        self.objects: dict[str, Stored] = {}
        self.now = 1_790_000_000
        self.seconds_to_store = 10
        self.conditional = conditional
        self.requests: list[ReceivedRequest] = []
        self._lock = threading.Lock()

    def answer(self, request: ReceivedRequest, owner: str = "") -> bytes:
        """Carry out a request. ``owner`` is noted with what it stores."""
        with self._lock:
            self.requests.append(request)
            key = request.path.lstrip("/").partition("/")[2]
            answer = self._on_object(request, key, owner) if key else self._on_bucket(request)
            head, _, body = answer.partition(b"\r\n\r\n")
            return head + f"\r\ndate: {formatdate(self.now, usegmt=True)}\r\n\r\n".encode() + body

    def _on_bucket(self, request: ReceivedRequest) -> bytes:
        return self._delete_many(request) if "delete" in request.query else self._list(request.query)

    def _delete_many(self, request: ReceivedRequest) -> bytes:
        """https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html"""
        if request.headers.get("content-md5") != base64.b64encode(hashlib.md5(request.body).digest()).decode():
            return s3_error(400, "InvalidRequest", "Missing required header for this request: Content-MD5")
        keys = [each.text or "" for each in ElementTree.fromstring(request.body).iter() if each.tag.endswith("}Key")]
        if not 0 < len(keys) <= 1000:
            return s3_error(400, "MalformedXML")
        said = "".join(self._delete_one(key) for key in keys)
        return response(200, f'<DeleteResult xmlns="{_NAMESPACE}">{said}</DeleteResult>'.encode())

    def _delete_one(self, key: str) -> str:
        """Delete an object, and say so in a document."""
        self.objects.pop(key, None)
        return f"<Deleted><Key>{escape(key)}</Key></Deleted>"

    def _on_object(self, request: ReceivedRequest, key: str, owner: str) -> bytes:
        if request.method == "PUT":
            return self._put(request, key, owner)
        if request.method == "DELETE":
            self.objects.pop(key, None)
            return response(204)
        there = self.objects.get(key)
        if there is None:
            return response(404) if request.method == "HEAD" else s3_error(404, "NoSuchKey")
        if request.method == "HEAD":
            return response(200, b"", {**there.headers, "content-length": str(len(there.data))})
        if request.headers.get("if-match", there.etag) != there.etag:
            return s3_error(412, "PreconditionFailed")
        return self._get(request, there)

    def _put(self, request: ReceivedRequest, key: str, owner: str) -> bytes:
        there = self.objects.get(key)
        if self.conditional:
            expected = request.headers.get("if-match")
            if expected is not None and there is None:
                return s3_error(404, "NoSuchKey")
            if there is not None and (expected not in (None, there.etag) or "if-none-match" in request.headers):
                return s3_error(412, "PreconditionFailed")
        self.now += self.seconds_to_store
        metadata = {name: value for name, value in request.headers.items() if name.startswith("x-amz-meta-")}
        self.objects[key] = Stored(request.body, metadata, self.now, owner)
        return response(200, b"", {"ETag": self.objects[key].etag})

    def _get(self, request: ReceivedRequest, there: Stored) -> bytes:
        if request.range is None:
            return response(200, there.data, there.headers)
        first, _, last = request.range.removeprefix("bytes=").partition("-")
        size = len(there.data)
        start = int(first) if first else max(0, size - int(last))
        stop = min(int(last) + 1 if first and last else size, size)
        if start >= size:
            return response(416, b"", {"Content-Range": f"bytes */{size}"})
        span = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
        return response(206, there.data[start:stop], {**there.headers, **span})

    def _list(self, query: dict[str, str]) -> bytes:
        if "uploads" in query:
            return response(200, b"<ListMultipartUploadsResult></ListMultipartUploadsResult>")
        prefix, delimiter, after = query["prefix"], query.get("delimiter", ""), query.get("continuation-token", "")
        found: dict[str, str] = {}
        for key in sorted(self.objects):
            if key.startswith(prefix):
                behind, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
                name = prefix + behind + cut if cut else key
                found[name] = self._listed(name, common=bool(cut))
        names = [name for name in found if name > after]
        page = names[: int(query["max-keys"])]
        more = len(page) < len(names)
        token = f"<NextContinuationToken>{quote_plus(page[-1])}</NextContinuationToken>" if more else ""
        head = f"<EncodingType>url</EncodingType><IsTruncated>{str(more).lower()}</IsTruncated>{token}"
        body = "".join(found[name] for name in page)
        return response(200, f"<ListBucketResult>{head}{body}</ListBucketResult>".encode())

    def _listed(self, name: str, *, common: bool) -> str:
        if common:
            return f"<CommonPrefixes><Prefix>{quote_plus(name)}</Prefix></CommonPrefixes>"
        there = self.objects[name]
        time = datetime.fromtimestamp(there.time, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        fields = f"<LastModified>{time}</LastModified><ETag>{there.etag}</ETag><Size>{len(there.data)}</Size>"
        return f"<Contents><Key>{quote_plus(name)}</Key>{fields}<StorageClass>STANDARD</StorageClass></Contents>"
