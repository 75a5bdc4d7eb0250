"""Samples that a transform gets as a dict: the members of an archive, or several objects.

The dict is that of WebDataset: ``__key__``, ``__url__``, and the bytes of each file by its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from s3torchconnector._errors import S3ChecksumError, S3FormatError
from s3torchconnector._samples._fetched import FetchedSample, OpenPart, RangeSample
from s3torchconnector._samples._grouping import KEY, URL, group
from s3torchconnector._samples._items import ArchiveItem, GroupItem, Member
from s3torchconnector._samples._tar import entries_of
from s3torchconnector._uri import display_uri


class ArchiveSample(RangeSample):
    """The members of one sample, which are fetched as one range of the archive.

    Args:
        item: what the sample consists of.
        open_part: opens a range.
    """

    def __init__(self, item: ArchiveItem, open_part: OpenPart) -> None:
        self._item = item
        self._open = open_part
        super().__init__(item, open_part)

    @property
    def file(self) -> dict[str, Any]:
        """The sample.

        Raises:
            S3ChecksumError: the bytes of a member are not those that were indexed.
            S3FormatError: the archive was indexed by others, and the index is wrong.
            S3Exception: an error occurred accessing S3.
        """
        data, item = self._reader.read(), self._item
        if not item.members:
            return _dict_of(item.bucket, item.key, *self._parsed(data))
        wrong = self._first_wrong(data)
        if wrong is not None:
            data, before = self._open(item, again=True).read(), data
            wrong = self._first_wrong(data)
            if wrong is not None:
                raise self._mismatch(wrong, same=data == before)
        members = ((name, data[start - item.start : stop - item.start]) for name, start, stop, _ in item.members)
        return _dict_of(item.bucket, item.key, item.name, members)

    def _first_wrong(self, data: bytes) -> Member | None:
        """The first member that does not have its checksum."""
        view, base = memoryview(data), self._item.start
        for member in self._item.members:
            if not member.sums.are_of(view[member.start - base : member.stop - base]):
                return member
        return None

    def _parsed(self, data: bytes) -> tuple[str, Iterable[tuple[str, bytes]]]:
        """The key and members of a sample of which only the place is known."""
        item = self._item
        try:
            [(key, found)] = list(group(entries_of(data, item.start)))
        except (S3FormatError, ValueError) as error:
            detail = str(error) if isinstance(error, S3FormatError) else "there is not one sample"
            raise S3FormatError(
                f"{display_uri(item.bucket, item.key)}: bytes {item.start} to {item.stop} are not one sample, as its "
                f"index (.tar.idx) says: {detail}. Write the index again, or use S3Manifest.from_tar with "
                "use_index=False",
                bucket=item.bucket,
                key=item.key,
            ) from error
        return key, ((name, data[each.start - item.start : each.stop - item.start]) for name, each in found.items())

    def _mismatch(self, wrong: Member, *, same: bool) -> S3ChecksumError:
        item = self._item
        why = (
            "They came twice the same: they were changed in storage, or when they were indexed. Compare the archive "
            "with its source, and index it again"
            if same
            else "They came twice, and differed: they are changed on the way. Read them again, over another network if "
            "you can"
        )
        error = S3ChecksumError(
            f"{display_uri(item.bucket, item.key)}: bytes {wrong.start} to {wrong.stop}, the member {wrong.name!r} of "
            f"the sample {item.name!r}, do not have the checksum (CRC-32) with which they were indexed. {why}",
            operation="GetObject",
            bucket=item.bucket,
            key=item.key,
        )
        error.start, error.stop = wrong.start, wrong.stop
        return error


class GroupSample(FetchedSample):
    """Several objects that are one sample, fetched at the same time.

    Args:
        item: what the sample consists of.
        open_part: opens one of the objects.
    """

    def __init__(self, item: GroupItem, open_part: OpenPart) -> None:
        self._item = item
        self._readers = [open_part(part) for _, part in item.parts]

    def _start_early(self, likely_size: int | None) -> bool:
        for reader in self._readers:
            reader._start_early(likely_size)
        return True

    def _hand_out(self) -> int | None:
        sizes = [reader._hand_out() for reader in self._readers]
        return sum(size for size in sizes if size is not None) or None

    def close(self) -> None:
        """Cancel what is under way and free the memory."""
        for reader in self._readers:
            reader.close()

    @property
    def file(self) -> dict[str, Any]:
        """The sample.

        Raises:
            S3Exception: an error occurred accessing S3.
        """
        item = self._item
        if len(self._readers) > 1:
            for reader in self._readers:
                reader._start_early()  # which fetches nothing twice
        read = [(name, reader.read()) for (name, _), reader in zip(item.parts, self._readers, strict=True)]
        return _dict_of(item.bucket, item.parts[0][1].key, item.name, read)


def _dict_of(bucket: str, key: str, name: str, members: Iterable[tuple[str, bytes]]) -> dict[str, Any]:
    return {KEY: name, URL: f"s3://{bucket}/{key}", **dict(members)}
