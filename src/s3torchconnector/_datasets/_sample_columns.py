"""The columns of samples, in a manifest whose samples are not whole objects. They follow the columns of the objects.
Pure.

::

    member_ends    u32 or u64 a sample, unless each has one member: where its members end among all members
    object_of      u32 a sample, unless the members are objects: the row of its object
    name_ends      u32 or u64 a sample, if samples have names: where its name ends among the names
    starts         where each member begins: u32, in blocks of 512 bytes if its object is an archive; or u64, in bytes
    lengths        u32 or u64 a member, in bytes
    crcs           u32 a member of an archive: CRC-32
    crc32cs        u32 a member of an archive: CRC-32C, if that is known of all
    suffix_of      u16 or u32 a member, unless samples are ranges: which of the header's ``suffixes`` is its name; of
                   records, what they are
    names          UTF-8, without anything between them

The wider form is used for a column if one of its numbers needs it. A member without a suffix (null) is a sample of an
archive that was indexed by others: only its place is known. If the members are objects, they are all objects, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Kind = Literal["ranges", "records", "archives", "groups"]
"""What samples are: some bytes of an object; some that have a name and a form (see ``RecordItem``); some members of a
tar archive; several objects."""
RANGES: Final[Kind] = "ranges"
RECORDS: Final[Kind] = "records"
ARCHIVES: Final[Kind] = "archives"
GROUPS: Final[Kind] = "groups"

BLOCK = 512
_WIDTHS: dict[str, tuple[Literal["H", "I", "Q"], Literal["H", "I", "Q"]]] = {
    "member_ends": ("I", "Q"),
    "object_of": ("I", "I"),
    "name_ends": ("I", "Q"),
    "starts": ("I", "Q"),
    "lengths": ("I", "Q"),
    "crcs": ("I", "I"),
    "crc32cs": ("I", "I"),
    "suffix_of": ("H", "I"),
}
_BYTES = {"H": 2, "I": 4, "Q": 8}
_COLUMNS_OF = {
    RANGES: ("object_of", "name_ends", "starts", "lengths"),
    RECORDS: ("object_of", "name_ends", "starts", "lengths", "suffix_of"),
    ARCHIVES: ("member_ends", "object_of", "name_ends", "starts", "lengths", "crcs", "crc32cs", "suffix_of"),
    GROUPS: ("member_ends", "name_ends", "suffix_of"),
}
_OF_SAMPLES = ("member_ends", "object_of", "name_ends")


@dataclass(frozen=True)
class SampleColumns:
    """The part of a manifest's header about its samples, if they are not whole objects.

    Attributes:
        kind: see ``Kind``.
        samples, members: how many there are.
        name_bytes: how long the names of all samples are; 0 if they have none.
        suffixes: the names of members, each once; None is that of a sample of which only the place is known. Of
            records, their forms.
        wide: the columns that have the wider form.
        left_out: those that could be there.
    """

    kind: Kind
    samples: int
    members: int
    name_bytes: int
    suffixes: tuple[str | None, ...]
    wide: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    def code(self, column: str) -> Literal["H", "I", "Q"]:
        """The format of a column's numbers, as in ``struct``."""
        return _WIDTHS[column][column in self.wide]

    @property
    def start_unit(self) -> int:
        """Bytes that a number in ``starts`` stands for."""
        return 1 if "starts" in self.wide or self.kind != ARCHIVES else BLOCK

    def numbers(self) -> tuple[str, ...]:
        """The columns of numbers that there are, in the order of the file."""
        present = _COLUMNS_OF[self.kind]
        return tuple(
            [name for name in present if name not in self.left_out and (name != "name_ends" or self.name_bytes)]
        )

    def sizes(self) -> dict[str, int]:
        """How many bytes each column has, in the order of the file."""
        sizes = {
            name: _BYTES[self.code(name)] * (self.samples if name in _OF_SAMPLES else self.members)
            for name in self.numbers()
        }
        return {**sizes, "names": self.name_bytes}

    @classmethod
    def of_document(cls, document: Any) -> SampleColumns:
        """The reverse of ``dataclasses.asdict``, for JSON that anybody may have written.

        Raises:
            TypeError, ValueError, KeyError: the document is not valid.
        """
        found = cls(**{**document, **{name: _texts(document[name]) for name in ("suffixes", "wide", "left_out")}})
        for name in ("samples", "members", "name_bytes"):
            value = getattr(found, name)
            if type(value) is not int or not 0 <= value < 2**48:
                raise TypeError(f"{name} is {value!r:.100}")
        if (
            found.kind not in _COLUMNS_OF
            or not set(found.wide) <= set(_WIDTHS)
            or not set(found.left_out) <= {"crc32cs"}
        ):
            raise ValueError(f"the samples are {found.kind!r:.100}, with the wide columns {found.wide!r:.100}")
        if found.kind in (RANGES, RECORDS) and found.members != found.samples:
            raise ValueError(f"{found.samples} ranges have {found.members} members")
        return found


def _texts(values: Sequence[Any]) -> tuple[str | None, ...]:
    if not isinstance(values, list) or not all(isinstance(text, str | None) for text in values):
        raise TypeError(f"there are {values!r:.100} instead of texts")
    return tuple(values)
