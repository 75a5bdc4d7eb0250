"""The checksums of an object that is copied in parts: the server sums them, and compares the whole with the source.

The upload is begun with the algorithm of the source, if S3 keeps a checksum of all of it. The checksums that the server
returns for the parts are combined, and compared with the checksum of the source before the copy appears. The completion
request also contains it.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

from __future__ import annotations

from collections.abc import Mapping

from s3torchconnector._errors import S3ChecksumError
from s3torchconnector._transfer.writing._upload_checksums import UploadChecksums
from s3torchconnector._wire import Algorithm, Caller, offered


class CopiedChecksums(UploadChecksums):
    """Like ``UploadChecksums``, for parts whose bytes this process has not seen.

    Args:
        name: what is copied.
        source: its headers.
    """

    def __init__(self, caller: Caller, bucket: str, name: str, source: Mapping[str, str]) -> None:
        super().__init__(caller, bucket, wanted=False)
        self._name = name
        found = offered(source) if self._carried is not None else {}
        self._of_source: tuple[Algorithm, int] | None = next(iter(found.items()), None)
        if self._of_source is not None:
            self._carried = self._algorithm = self._of_source[0]

    @property
    def algorithm(self) -> str | None:
        """S3's name of the algorithm; None if there is none."""
        return None if self._carried is None else self._carried.name

    def note_part(self, number: int, checksum: str | None, size: int) -> None:
        """The server returned this checksum of a part. If it returns none, none is sent when the upload is
        completed.
        """
        algorithm = self._carried
        crc = None if algorithm is None or checksum is None else algorithm.decode(checksum)
        if crc is None:
            self._carried = self._algorithm = None
        else:
            self._parts[number] = crc, size

    def of_whole(self) -> Mapping[str, str]:
        """As of any upload.

        Raises:
            S3ChecksumError: the parts are not what the source is.
        """
        if self._of_source is not None and self._carried is not None:
            algorithm, crc = self._of_source
            if self._whole(algorithm) != crc:
                raise S3ChecksumError(
                    f"the copy of {self._name} has another checksum than {self._name}: the server has read or stored "
                    "it wrongly. Nothing was stored: copy it again",
                    operation="UploadPartCopy",
                )
        return super().of_whole()
