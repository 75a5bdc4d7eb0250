"""MinIO: an upload begun with a checksum algorithm must name each part's checksum when it is completed.

``cmd/erasure-multipart.go``, CompleteMultipartUpload, answers ``InvalidPart`` for a part whose ``<Checksum...>`` is
missing or another, also for FULL_OBJECT: https://github.com/minio/minio/issues/20944,
https://github.com/pgsty/silo/issues/31. Versions before 2025 know neither FULL_OBJECT nor CRC64NVME, and compare the
header of the completion with the checksum of the parts' checksums: https://github.com/minio/minio/issues/19670.
"""

from __future__ import annotations

from xml.etree import ElementTree

from tests.servers.http_messages import ReceivedRequest, s3_error
from tests.servers.stand_ins.aws_like import BY_HEADER, AwsLike, MultipartUpload, text_of

_INVALID_PART = (
    "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified "
    "entity tag may not match the part's entity tag."
)
_MISMATCH = "The provided 'x-amz-checksum' header does not match what was computed."


class Minio(AwsLike):
    """A version that knows FULL_OBJECT."""

    def refuse_completion(
        self, request: ReceivedRequest, upload: MultipartUpload, parts: list[ElementTree.Element]
    ) -> bytes | None:
        for part in parts:
            stored = upload.parts[int(text_of(part, "PartNumber"))]
            for header, algorithm in BY_HEADER.items():
                expected = stored.checksums.get(header)
                if upload.algorithm == algorithm.name and text_of(part, f"Checksum{algorithm.name}") != expected:
                    return s3_error(400, "InvalidPart", _INVALID_PART)
        return self.compare_whole(request, upload, parts)

    def compare_whole(
        self, request: ReceivedRequest, upload: MultipartUpload, parts: list[ElementTree.Element]
    ) -> bytes | None:
        """The refusal of a checksum of the whole object."""
        refusal = super().refuse_completion(request, upload, parts)
        return None if refusal is None else s3_error(400, "XAmzContentChecksumMismatch", _MISMATCH)


class OldMinio(Minio):
    """A version before 2025."""

    def refuse(self, request: ReceivedRequest) -> bytes | None:
        header = "x-amz-checksum-crc64nvme"
        if request.headers.get("x-amz-checksum-algorithm") == "CRC64NVME" or header in request.headers:
            return s3_error(400, "InvalidArgument", "Invalid checksum provided.")
        return None

    def compare_whole(
        self, request: ReceivedRequest, upload: MultipartUpload, parts: list[ElementTree.Element]
    ) -> bytes | None:
        for header, value in self.told(request).items():
            algorithm = BY_HEADER[header]
            crcs = [algorithm.decode(upload.parts[number].checksums[header]) or 0 for number in sorted(upload.parts)]
            of_parts = algorithm.of([crc.to_bytes(algorithm.bits // 8, "big") for crc in crcs])
            if algorithm.encode(of_parts) != value:
                return s3_error(400, "XAmzContentChecksumMismatch", _MISMATCH)
        return None

    def checksums_of(self, request: ReceivedRequest, upload: MultipartUpload, data: bytes) -> dict[str, str]:
        kept = super().checksums_of(request, upload, data)
        return {header: f"{value}-{len(upload.parts)}" for header, value in kept.items() if header in BY_HEADER}
