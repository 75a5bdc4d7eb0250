"""An object as a file that fetches only the bytes that are read."""

from __future__ import annotations

import io

from s3torchconnector._config import GIB, KIB
from s3torchconnector._errors import S3FormatError
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer import Piece, PiecesReader
from s3torchconnector._types import WriteableBuffer
from s3torchconnector._uri import display_uri

BLOCK = 64 * KIB
_MOST = 1 * GIB  # what names and shapes take, by far; the file's author decides which size it claims for them


class RemoteFile(io.RawIOBase):
    """One version of an object, fetched in blocks that are kept. The first block is requested at once.

    Attributes:
        uri: for texts.
        size: in bytes.
        head: the first bytes, at most one block.

    Raises:
        S3NotFoundError: there is no such object.
        S3Exception: an error occurred accessing S3.
    """

    def __init__(self, client: S3Client, bucket: str, key: str) -> None:
        self.uri = display_uri(bucket, key)
        self._reader = PiecesReader(client._runtime(), bucket, key, max_gap=0)
        self.head = bytes(self._reader.read_head(BLOCK))
        self._reader.prepare_verification(whole=False)
        self.size = self._reader.size
        self._blocks = {0: self.head}
        self._fetched = len(self.head)
        self._position = 0

    def fetch(self, start: int, stop: int) -> None:
        """Request the missing bytes of a range, all at the same time.

        Raises:
            S3FormatError: it is so much that the file cannot be right.
            S3Exception: an error occurred accessing S3.
        """
        missing = [
            number for number in range(start // BLOCK, -(-min(stop, self.size) // BLOCK)) if number not in self._blocks
        ]
        sizes = {number: min(BLOCK, self.size - number * BLOCK) for number in missing}
        self._fetched += sum(sizes.values())
        if self._fetched > _MOST:
            raise S3FormatError(f"{self.uri} says that its directory has more than {_MOST} bytes: it is damaged")
        blocks = {number: bytearray(size) for number, size in sizes.items()}
        self._reader.read(Piece(number * BLOCK, memoryview(block)) for number, block in blocks.items())
        self._blocks.update({number: bytes(block) for number, block in blocks.items()})

    def read_range(self, start: int, stop: int) -> bytes:
        """The bytes of a range, as far as there are any."""
        stop = min(stop, self.size)
        self.fetch(start, stop)
        blocks = b"".join(self._blocks[number] for number in range(start // BLOCK, -(-stop // BLOCK)))
        return blocks[start % BLOCK :][: max(0, stop - start)]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError(f"there is no position {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read_range(self._position, self._position + len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        return self.read(max(0, self.size - self._position)) or b""
