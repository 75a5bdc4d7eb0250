"""What a sample consists of, if it is not one whole object. Pure.

Each kind is an ``S3BucketKeyData``, so that all code that handles objects of a dataset can name it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from s3torchconnector._errors import S3Exception
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._samples._sums import UNKNOWN, Sums
from s3torchconnector._types import ObjectInfo
from s3torchconnector._uri import display_uri


class Member(NamedTuple):
    """One file of a sample that lies in an archive.

    Attributes:
        name: its key in the sample, such as ``"jpg"``.
        start, stop: its bytes in the archive.
        sums: the checksums of its bytes.
    """

    name: str
    start: int
    stop: int
    sums: Sums = UNKNOWN


class RangeItem(S3BucketKeyData):
    """Some bytes of an object; ``object_info`` is the object's. A transform gets a reader of them.

    Attributes:
        start, stop: which bytes.
    """

    start: int
    stop: int

    def __new__(cls, bucket: str, key: str, object_info: ObjectInfo, start: int, stop: int, *_: Any) -> RangeItem:
        item: RangeItem = tuple.__new__(cls, (bucket, key, object_info))
        item.start, item.stop = start, stop
        return item

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (*self, self.start, self.stop)

    @property
    def sample_size(self) -> int:
        """How many bytes a transform gets."""
        return self.stop - self.start

    @property
    def sample_name(self) -> str:
        """What names the sample, in errors and in lists of what was read."""
        return f"{self.key}[{self.start}:{self.stop}]"


class RecordItem(RangeItem):
    """Some bytes of an object that a transform does not get as they are.

    Attributes:
        name: what names the sample in its object, such as the number of a row group.
        form: what the bytes are, and how they are decoded: see ``_records``.
    """

    name: str
    form: str

    def __new__(cls, bucket: str, key: str, object_info: ObjectInfo, start: int, stop: int, *rest: Any) -> RecordItem:
        item: RecordItem = tuple.__new__(cls, (bucket, key, object_info))
        item.start, item.stop = start, stop
        item.name, item.form = rest
        return item

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (*super().__getnewargs__(), self.name, self.form)

    @property
    def sample_name(self) -> str:
        return f"{self.key}/{self.name}"


class ArchiveItem(RangeItem):
    """One sample of a tar archive. A transform gets a dict of its members' bytes.

    Attributes:
        name: the sample's ``__key__``; for an archive that was indexed by others, its number.
        members: its files, in order. None are known if others have indexed the archive: they are found when the
            sample is read.
    """

    name: str
    members: Sequence[Member]

    def __new__(cls, bucket: str, key: str, object_info: ObjectInfo, start: int, stop: int, *rest: Any) -> ArchiveItem:
        item: ArchiveItem = tuple.__new__(cls, (bucket, key, object_info))  # the shortest way: there are many
        item.start, item.stop = start, stop
        item.name, item.members = rest
        return item

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (*super().__getnewargs__(), self.name, self.members)

    @property
    def sample_size(self) -> int:
        return sum(member.stop - member.start for member in self.members) or self.stop - self.start

    @property
    def sample_name(self) -> str:
        return f"{self.key}/{self.name}"


class GroupItem(S3BucketKeyData):
    """Several objects that are one sample. It has the bucket, key and description of the first one.

    Attributes:
        name: what the keys have in common, the sample's ``__key__``.
        parts: the objects, each with its key in the sample.
    """

    name: str
    parts: Sequence[tuple[str, S3BucketKeyData]]

    def __new__(cls, name: str, parts: Sequence[tuple[str, S3BucketKeyData]]) -> GroupItem:
        item = super().__new__(cls, *parts[0][1])
        item.name, item.parts = name, parts
        return item

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.name, self.parts

    @property
    def sample_size(self) -> int:
        return sum(part.object_info.size for _, part in self.parts if part.object_info is not None)

    @property
    def sample_name(self) -> str:
        return self.name


# A tuple: a union in ``isinstance`` would be made anew for each sample.
_NAMED = (RangeItem, GroupItem)


def size_of(item: S3BucketKeyData) -> int:
    """How many bytes a transform gets, as far as that is known."""
    if isinstance(item, _NAMED):
        return item.sample_size
    return 0 if item.object_info is None else item.object_info.size


def name_of(item: S3BucketKeyData) -> str:
    """The name of a sample in its bucket: the key of an object, or of an archive and the sample's name in it."""
    return item.sample_name if isinstance(item, _NAMED) else item.key


def name_sample(error: BaseException, item: S3BucketKeyData) -> None:
    """Add to an error of a transform which sample it is about. (Python 3.10 has no notes; errors of S3 say it.)"""
    add_note = getattr(error, "add_note", None)
    if add_note is not None and isinstance(error, Exception) and not isinstance(error, S3Exception):
        note = f"in the sample {display_uri(item.bucket, name_of(item))}"
        if note not in getattr(error, "__notes__", ()):
            add_note(note)
