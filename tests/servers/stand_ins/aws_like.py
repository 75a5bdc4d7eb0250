"""S3 in memory as AWS documents it: what the stand-ins for other servers change.

https://docs.aws.amazon.com/AmazonS3/latest/API/Welcome.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, quote_plus, unquote, unquote_plus
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from s3torchconnector._wire._checksums import ALGORITHMS
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.memory_s3 import MemoryS3, Stored
from tests.servers.scripted import ScriptedServer

_INITIATED = "2026-01-31T10:20:30.000Z"
BY_HEADER = {algorithm.header: algorithm for algorithm in ALGORITHMS}


@dataclass(frozen=True)
class Kept(Stored):
    """An object with an ETag of its own, and the checksum headers that it is served with."""

    kept_etag: str = ""
    checksums: dict[str, str] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        return self.kept_etag


@dataclass(frozen=True)
class Part:
    data: bytes
    etag: str
    checksums: dict[str, str]


@dataclass
class MultipartUpload:
    key: str
    request: ReceivedRequest  # that began it
    parts: dict[int, Part] = field(default_factory=dict)

    @property
    def algorithm(self) -> str | None:
        return self.request.headers.get("x-amz-checksum-algorithm")


class AwsLike(MemoryS3):
    """See the module.

    Attributes:
        uploads: multipart uploads that have not ended, by their id.
        tags: the tags of objects by their keys, as the header of their request had them.
        counts: how many requests there were of each kind, such as ``PUT`` or ``POST ?uploads``.
    """

    bucket = "bucket"
    largest_copy = 5 * 1024**3  # bytes that one request copies

    def __init__(self) -> None:
        super().__init__()
        self.uploads: dict[str, MultipartUpload] = {}
        self.tags: dict[str, str] = {}
        self._ids = 0

    def serve(self) -> ScriptedServer:
        """The server, to be entered."""
        return ScriptedServer(handler=self.answer)

    def count(self, method: str, *parameters: str) -> int:
        """How many requests had this method and exactly these query parameters."""
        return sum(each.method == method and set(each.query) == set(parameters) for each in self.requests)

    # -- what stand-ins change -----------------------------------------------------------------------------------------

    def refuse(self, request: ReceivedRequest) -> bytes | None:
        """The answer to a request that is refused for what it carries."""
        return None

    def verify(self, request: ReceivedRequest) -> bytes | None:
        """The refusal of a body that is not what its checksums say."""
        md5 = base64.b64encode(hashlib.md5(request.body).digest()).decode()
        if request.headers.get("content-md5", md5) != md5:
            return s3_error(400, "BadDigest", "The Content-MD5 you specified did not match what we received.")
        for header, value in self.told(request).items():
            algorithm = BY_HEADER[header]
            if algorithm.encode(algorithm.of([request.body])) != value:
                return s3_error(400, "BadDigest", f"The {algorithm.name} you specified did not match.")
        return None

    def told(self, request: ReceivedRequest) -> dict[str, str]:
        """The checksums that a request carries, as far as this server knows of them."""
        return {header: request.headers[header] for header in BY_HEADER if header in request.headers}

    def refuse_completion(
        self, request: ReceivedRequest, upload: MultipartUpload, parts: list[ElementTree.Element]
    ) -> bytes | None:
        """The refusal of a completion, whose parts are all there; ``parts`` are those of its document."""
        for part in parts:
            stored = upload.parts[int(text_of(part, "PartNumber"))]
            for header, algorithm in BY_HEADER.items():
                named = text_of(part, f"Checksum{algorithm.name}")
                if named and named != stored.checksums.get(header):
                    return s3_error(400, "InvalidPart", "One or more of the specified parts could not be found.")
        data = b"".join(upload.parts[int(text_of(part, "PartNumber"))].data for part in parts)
        return self.verify(replace(request, body=data)) if self.told(request) else None

    def checksums_of(self, request: ReceivedRequest, upload: MultipartUpload, data: bytes) -> dict[str, str]:
        """What is kept of a completed upload."""
        algorithm = next((each for each in ALGORITHMS if each.name == upload.algorithm), None)
        if algorithm is None:
            return {}
        return {algorithm.header: algorithm.encode(algorithm.of([data])), "x-amz-checksum-type": "FULL_OBJECT"}

    def holds(self, request: ReceivedRequest, there: Stored | None) -> bool:
        """Whether the condition of a write holds."""
        expected = request.headers.get("if-match")
        return (there is None or "if-none-match" not in request.headers) and (
            expected is None or (there is not None and expected == there.etag)
        )

    def entry(self, key: str, there: Stored, time: str) -> str:
        """An object in a listing."""
        fields = f"<LastModified>{time}</LastModified><ETag>{there.etag}</ETag><Size>{len(there.data)}</Size>"
        return f"<Contents><Key>{quote_plus(key)}</Key>{fields}<StorageClass>STANDARD</StorageClass></Contents>"

    # -- objects -------------------------------------------------------------------------------------------------------

    def _on_object(self, request: ReceivedRequest, key: str, owner: str) -> bytes:
        refusal = self.refuse(request)
        if refusal is not None:
            return refusal
        if "uploads" in request.query:
            return self._begin(request, key)
        if "uploadId" in request.query:
            return self._on_upload(request, key)
        if "tagging" in request.query:
            return self._tagging(key)
        if request.method in ("GET", "HEAD"):
            return self._read(request, key, owner)
        return super()._on_object(request, key, owner)

    def _read(self, request: ReceivedRequest, key: str, owner: str) -> bytes:
        answer = super()._on_object(request, key, owner)
        there = self.objects.get(key)
        tags = parse_qsl(self.tags.get(key, ""), keep_blank_values=True)
        if tags and b" 200 " in answer[:20]:
            answer = with_headers(answer, {"x-amz-tagging-count": str(len(tags))})
        wanted = request.headers.get("x-amz-checksum-mode") == "ENABLED"
        if not (wanted and isinstance(there, Kept) and there.checksums):
            return answer
        size = len(there.data)
        whole = b" 200 " in answer[:20] or f"content-range: bytes 0-{size - 1}/{size}\r\n".encode() in answer[:2000]
        return with_headers(answer, there.checksums) if whole else answer

    def _tagging(self, key: str) -> bytes:
        tags = parse_qsl(self.tags.get(key, ""), keep_blank_values=True)
        entries = "".join(f"<Tag><Key>{escape(name)}</Key><Value>{escape(value)}</Value></Tag>" for name, value in tags)
        return response(200, f"<Tagging><TagSet>{entries}</TagSet></Tagging>".encode())

    def _put(self, request: ReceivedRequest, key: str, owner: str) -> bytes:
        if "x-amz-copy-source" in request.headers:
            return self._copy(request, key)
        refusal = self.verify(request)
        if refusal is not None:
            return refusal
        there = self.objects.get(key)
        if "if-match" in request.headers and there is None:
            return s3_error(404, "NoSuchKey")
        if not self.holds(request, there):
            return s3_error(412, "PreconditionFailed")
        told = self.told(request)
        kept = {**told, "x-amz-checksum-type": "FULL_OBJECT"} if told else {}
        etag = self._store(request, key, request.body, md5_of(request.body), kept)
        return response(200, b"", {"ETag": etag, **told})

    def _store(self, request: ReceivedRequest, key: str, data: bytes, etag: str, checksums: dict[str, str]) -> str:
        self.now += self.seconds_to_store
        metadata = {name: value for name, value in request.headers.items() if is_metadata(name) or is_encryption(name)}
        self.objects[key] = Kept(data, metadata, self.now, "", f'"{etag}"', checksums)
        self.tags[key] = request.headers.get("x-amz-tagging", "")
        return self.objects[key].etag

    def _copy(self, request: ReceivedRequest, key: str) -> bytes:
        source, there = self._source(request)
        if isinstance(there, bytes):
            return there
        if len(there.data) > self.largest_copy:
            return s3_error(
                400, "InvalidRequest", "The specified copy source is larger than the maximum allowable size"
            )
        if not self.holds(request, self.objects.get(key)):
            return s3_error(412, "PreconditionFailed")
        tags = self.tags.get(source, "")
        old = {name: value for name, value in there.metadata.items() if is_metadata(name)}
        headers = request.headers
        if headers.get("x-amz-metadata-directive") != "REPLACE":
            headers = {**{name: value for name, value in headers.items() if not is_metadata(name)}, **old}
        if headers.get("x-amz-tagging-directive") != "REPLACE":
            headers = {**headers, "x-amz-tagging": tags}
        checksums = there.checksums if isinstance(there, Kept) else {}
        etag = self._store(with_fields(request, headers), key, there.data, md5_of(there.data), checksums)
        return response(200, f"<CopyObjectResult><ETag>{etag}</ETag></CopyObjectResult>".encode())

    def _source(self, request: ReceivedRequest) -> tuple[str, Stored | bytes]:
        """The key of what is copied, and what is there; or the refusal."""
        key = unquote(request.headers["x-amz-copy-source"]).lstrip("/").partition("/")[2]
        there = self.objects.get(key)
        if there is None:
            return key, s3_error(404, "NoSuchKey")
        if request.headers.get("x-amz-copy-source-if-match", there.etag) != there.etag:
            return key, s3_error(412, "PreconditionFailed")
        return key, there

    # -- multipart uploads ---------------------------------------------------------------------------------------------

    def _begin(self, request: ReceivedRequest, key: str) -> bytes:
        self._ids += 1
        identifier = f"upload-{self._ids}"
        self.uploads[identifier] = MultipartUpload(key, request)
        document = f"<InitiateMultipartUploadResult><UploadId>{identifier}</UploadId></InitiateMultipartUploadResult>"
        return response(200, document.encode())

    def _on_upload(self, request: ReceivedRequest, key: str) -> bytes:
        upload = self.uploads.get(request.query["uploadId"])
        if upload is None or upload.key != key:
            return s3_error(404, "NoSuchUpload")
        if request.method == "DELETE":
            del self.uploads[request.query["uploadId"]]
            return response(204)
        return self._upload_part(request, upload) if request.method == "PUT" else self._complete(request, upload)

    def _upload_part(self, request: ReceivedRequest, upload: MultipartUpload) -> bytes:
        if "x-amz-copy-source" in request.headers:
            return self._copy_part(request, upload)
        refusal = self.verify(request)
        if refusal is not None:
            return refusal
        told = self.told(request)
        part = Part(request.body, f'"{md5_of(request.body)}"', told)
        upload.parts[int(request.query["partNumber"])] = part
        return response(200, b"", {"ETag": part.etag, **told})

    def _copy_part(self, request: ReceivedRequest, upload: MultipartUpload) -> bytes:
        _, there = self._source(request)
        if isinstance(there, bytes):
            return there
        first, _, last = request.headers["x-amz-copy-source-range"].removeprefix("bytes=").partition("-")
        data = there.data[int(first) : int(last) + 1]
        if len(data) != int(last) + 1 - int(first) or len(there.data) <= 5 * 1024**2 or len(data) > 5 * 1024**3:
            return s3_error(400, "InvalidArgument", "Range specified is not valid for source object")
        kept = {each.header: each.encode(each.of([data])) for each in ALGORITHMS if each.name == upload.algorithm}
        part = Part(data, f'"{md5_of(data)}"', kept)
        upload.parts[int(request.query["partNumber"])] = part
        sums = "".join(
            f"<Checksum{BY_HEADER[header].name}>{value}</Checksum{BY_HEADER[header].name}>"
            for header, value in kept.items()
        )
        return response(200, f"<CopyPartResult><ETag>{part.etag}</ETag>{sums}</CopyPartResult>".encode())

    def _complete(self, request: ReceivedRequest, upload: MultipartUpload) -> bytes:
        parts = [each for each in ElementTree.fromstring(request.body) if each.tag.endswith("}Part")]
        numbers = [int(text_of(part, "PartNumber")) for part in parts]
        for part, number in zip(parts, numbers, strict=True):
            if number not in upload.parts or text_of(part, "ETag") != upload.parts[number].etag:
                return s3_error(400, "InvalidPart", "One or more of the specified parts could not be found.")
        if any(len(upload.parts[number].data) < 5 * 1024**2 for number in numbers[:-1]):
            return s3_error(400, "EntityTooSmall")
        refusal = self.refuse_completion(request, upload, parts)
        if refusal is not None:
            return refusal
        if not self.holds(request, self.objects.get(upload.key)):
            return s3_error(412, "PreconditionFailed")
        data = b"".join(upload.parts[number].data for number in numbers)
        digests = b"".join(bytes.fromhex(upload.parts[number].etag.strip('"')) for number in numbers)
        checksums = self.checksums_of(request, upload, data)
        etag = self._store(upload.request, upload.key, data, f"{md5_of(digests)}-{len(numbers)}", checksums)
        del self.uploads[request.query["uploadId"]]
        document = f"<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"
        return response(200, document.encode())

    # -- listings ------------------------------------------------------------------------------------------------------

    def _list(self, query: dict[str, str]) -> bytes:
        if "uploads" in query:
            return self._list_uploads(query)
        token = unquote_plus(query.get("continuation-token", "")) or query.get("start-after", "")
        return super()._list({**query, "continuation-token": token})

    def _list_uploads(self, query: dict[str, str]) -> bytes:
        prefix = query.get("prefix", "")
        encoded = quote_plus if query.get("encoding-type") == "url" else str
        entries = "".join(
            f"<Upload><Key>{encoded(upload.key)}</Key><UploadId>{identifier}</UploadId>"
            f"<Initiated>{_INITIATED}</Initiated></Upload>"
            for identifier, upload in sorted(self.uploads.items(), key=lambda each: each[1].key)
            if upload.key.startswith(prefix)
        )
        told = "<EncodingType>url</EncodingType>" if encoded is quote_plus else ""
        document = f"<ListMultipartUploadsResult>{told}<IsTruncated>false</IsTruncated>{entries}"
        return response(200, f"{document}</ListMultipartUploadsResult>".encode())

    def _listed(self, name: str, *, common: bool) -> str:
        text = super()._listed(name, common=common)
        if common:
            return text
        there = self.objects[name]
        return self.entry(name, there, text.partition("<LastModified>")[2].partition("<")[0])


def is_metadata(header: str) -> bool:
    """Whether S3 keeps the header with an object, and copies it."""
    return header.startswith("x-amz-meta-") or header in (
        "content-type",
        "cache-control",
        "content-encoding",
        "expires",
    )


def is_encryption(header: str) -> bool:
    """Whether S3 tells it of an object."""
    return header.startswith(("x-amz-server-side-encryption", "x-amz-storage-class")) and not header.endswith("-key")


def with_fields(request: ReceivedRequest, headers: dict[str, str]) -> ReceivedRequest:
    """A request with other headers."""
    return replace(request, head=replace(request.head, headers=headers))


def md5_of(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def text_of(element: ElementTree.Element, name: str) -> str:
    """The text of a child, whatever its namespace; empty if there is none."""
    return next((child.text or "" for child in element if child.tag.rpartition("}")[2] == name), "")


def with_headers(answer: bytes, headers: dict[str, str]) -> bytes:
    """An answer with more headers."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = "".join(f"\r\n{name}: {value}" for name, value in headers.items())
    return head + lines.encode() + b"\r\n\r\n" + body


def replace_headers(answer: bytes, headers: dict[str, str]) -> bytes:
    """An answer with other values of headers."""
    head, _, body = answer.partition(b"\r\n\r\n")
    kept = [line for line in head.split(b"\r\n") if line.partition(b":")[0].decode().lower() not in headers]
    return with_headers(b"\r\n".join(kept) + b"\r\n\r\n" + body, headers)
