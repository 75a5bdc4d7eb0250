"""The rows of a manifest, read from its columns: an object is made when it is asked for."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch

from s3torchconnector import _etag_columns
from s3torchconnector._datasets import _manifest_file
from s3torchconnector._datasets._manifest_file import Header
from s3torchconnector._errors import S3FormatError
from s3torchconnector._etag import quoted
from s3torchconnector._mapped_bytes import MappedBytes
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._types import ObjectInfo

if sys.byteorder != "little":  # the columns are used as they are stored
    raise ImportError("manifests need a little-endian machine")

_AT_A_TIME = 2**14  # rows that are checked: so few that PyTorch uses one thread, also in forked children


class Row(NamedTuple):
    """One object as it goes into a manifest; the ETag may have quotes or not."""

    bucket: str
    key: str
    size: int
    etag: str


class Samples(ABC):
    """The samples of a manifest, by number.

    Attributes:
        header: of the file.
        memory: the whole file.
    """

    header: Header
    memory: MappedBytes

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, i: int) -> S3BucketKeyData:
        """What the sample at ``i`` consists of.

        Raises:
            IndexError: there is none.
        """

    @abstractmethod
    def name_bytes(self, i: int) -> bytes:
        """A name of the sample that does not depend on other samples."""

    @abstractmethod
    def info(self, i: int) -> ObjectInfo:
        """What a filter gets about a sample."""

    @property
    @abstractmethod
    def total_bytes(self) -> int:
        """The sizes of all samples, added up."""

    @abstractmethod
    def size(self, i: int) -> int:
        """How many bytes of a sample a transform gets."""


class Rows(Samples):
    """The rows of a file that was checked: its objects, each of which is a sample if there are no other samples.

    Args:
        memory: the whole file.
        trusted: whether the content was compared with the header before, in this process or by who made the file.

    Raises:
        S3FormatError: it is no manifest, or a damaged one.
    """

    def __init__(self, memory: MappedBytes, *, trusted: bool = False) -> None:
        self.memory = memory
        self.header, start = _manifest_file.read_header(memory.view)
        if not trusted:
            _manifest_file.check_content(self.header, memory.view, start)
        elif len(memory.view) != start + self.header.data_size:
            raise S3FormatError("its length is not what its header says")
        self.start = start
        self._attach(start)
        if not trusted:
            self._check()

    def _attach(self, start: int) -> None:
        columns = self.header.columns()
        # What each row needs, without a look-up in the header.
        self._count, self._buckets = self.header.samples, self.header.buckets
        self._several_buckets = len(self._buckets) > 1
        self._text = self.header.etags == _etag_columns.TEXT
        self._in_parts = self.header.etags == _etag_columns.PARTS

        def column(name: str, code: Literal["Q", "I", "H", "B"]) -> memoryview:
            place = columns[name]
            return self.memory.view[start + place.start : start + place.stop].cast(code)

        self._key_ends = column("key_ends", "Q")
        self.sizes = column("sizes", "Q")
        self._bucket_of = column("bucket_of", "I")
        self._etag_ends = column("etag_ends", "Q")
        self._etag_parts = column("etag_parts", "H")
        self._etags = column("etags", "B")
        self._keys = column("keys", "B")

    def _check(self) -> None:
        """The numbers match their checksum, but anybody may have written them."""
        check_ends(self._key_ends, self.header.key_bytes, 1, "keys")
        if self.header.etags == _etag_columns.TEXT:
            check_ends(self._etag_ends, self.header.etag_bytes, 0, "ETags")
        if any(int(sizes.min()) < 0 for sizes in in_tensors(self.sizes)):
            raise S3FormatError("its sizes are invalid")
        if len(self) and not self.header.buckets:
            raise S3FormatError("it names no bucket")
        check_numbers(self._bucket_of, len(self.header.buckets), "buckets")

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> S3BucketKeyData:
        bucket, key, size, etag = self.row(i)
        return S3BucketKeyData(bucket, key, ObjectInfo(key, etag, size, 0))

    def row(self, i: int) -> Row:
        """The row at ``i``, from 0 on, with a quoted ETag.

        Raises:
            IndexError: there is none.
            S3FormatError: its key is no text.
        """
        if not 0 <= i < self._count:
            raise IndexError(f"index {i} is out of range for a manifest of {self._count} objects")
        try:
            key = str(self._keys[self._key_ends[i - 1] if i else 0 : self._key_ends[i]], "utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise S3FormatError(f"the key of row {i} of the manifest is not valid UTF-8: {error}") from error
        return Row(self.bucket(i), key, self.sizes[i], self._etag(i))

    def bucket(self, i: int) -> str:
        """The bucket of the object at ``i``."""
        return self._buckets[self._bucket_of[i] if self._several_buckets else 0]

    def name_bytes(self, i: int) -> bytes:
        """The key at ``i`` as it is stored."""
        return bytes(self._keys[self._key_ends[i - 1] if i else 0 : self._key_ends[i]])

    def _etag(self, i: int) -> str:
        if self._text:
            text = self._etags[self._etag_ends[i - 1] if i else 0 : self._etag_ends[i]]
            return quoted(str(text, "utf-8", "surrogateescape"))
        parts = self._etag_parts[i] if self._in_parts else 0
        return f'"{_etag_columns.unpacked(self._etags[16 * i : 16 * i + 16], parts)}"'

    def __iter__(self) -> Iterator[Row]:
        return map(self.row, range(len(self)))

    def info(self, i: int) -> ObjectInfo:
        row = self.row(i)
        return ObjectInfo(row.key, row.etag, row.size, 0)

    @property
    def total_bytes(self) -> int:
        return sum(self.sizes)

    def size(self, i: int) -> int:
        return self.sizes[i]

    def __reduce__(self) -> tuple[object, ...]:
        return _trusted, (self.memory,)


def _trusted(memory: MappedBytes) -> Rows:
    return Rows(memory, trusted=True)


def check_ends(ends: memoryview, total: int, least: int, what: str) -> None:
    """Whether the ends of texts ascend by at least ``least`` each, up to ``total``."""
    last = torch.zeros(1, dtype=torch.int64)
    for tensor in in_tensors(ends):
        if bool((tensor - torch.cat([last, tensor[:-1]]) < least).any()):
            raise S3FormatError(f"the positions of its {what} are invalid")
        last = tensor[-1:]
    if int(last) != total:
        raise S3FormatError(f"the positions of its {what} are invalid")


def check_numbers(numbers: memoryview, count: int, what: str) -> None:
    """Check that all of these are indexes into ``count`` things."""
    if any(int(some.max()) >= count for some in in_tensors(numbers)):
        raise S3FormatError(f"it refers to {what} that do not exist")


def in_tensors(column: memoryview) -> Iterator[torch.Tensor]:
    """A column of whole numbers in tensors, some of it at a time: they are copies. u64 beyond 2**63 become negative."""
    kind, mask = {"Q": (torch.int64, -1), "I": (torch.int32, 2**32 - 1), "H": (torch.int16, 2**16 - 1)}[column.format]
    for at in range(0, len(column), _AT_A_TIME):
        yield torch.frombuffer(bytearray(column[at : at + _AT_A_TIME].cast("B")), dtype=kind).to(torch.int64) & mask
