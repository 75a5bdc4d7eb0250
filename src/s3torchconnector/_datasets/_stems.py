"""Objects whose names differ only after the first dot are one sample: for example, an image and its caption."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from hashlib import blake2b
from typing import Literal

from s3torchconnector._datasets._rows import Rows
from s3torchconnector._datasets._sample_rows import Part, SampleRow
from s3torchconnector._errors import S3FormatError
from s3torchconnector._samples._grouping import KEY, URL, split_name

_log = logging.getLogger(__name__)
_NAMED = 10  # incomplete samples that are named

SplitKey = Callable[[str], tuple[str, str] | None]
"""The name of a key's sample, and the key's name in it; None if it belongs to no sample."""


class Groups:
    """The samples of objects, at any positions in the manifest. A sample has the position of its first object.

    Args:
        rows: the objects.
        split: see ``SplitKey``.
        required: names that each sample must have.
        missing: what becomes of samples that lack one.
    """

    def __init__(
        self, rows: Rows, split: SplitKey | None, required: Collection[str], missing: Literal["raise", "drop"]
    ) -> None:
        if missing not in ("raise", "drop"):
            raise ValueError(f"missing must be 'raise' or 'drop': missing={missing!r}")
        self._rows = rows
        self._split = split or split_name
        self._required = frozenset([required] if isinstance(required, str) else required)
        self._drops = missing == "drop"

    def __iter__(self) -> Iterator[SampleRow]:
        incomplete: list[str] = []
        count = 0
        for numbers in _together(self._hashes()):
            for sample in self._samples(numbers):
                lacks = self._required.difference([part.suffix for part in sample.parts if part.suffix is not None])
                if not lacks:
                    yield sample
                    continue
                count += 1
                if len(incomplete) < _NAMED:
                    incomplete.append(f"{sample.name} has no {', '.join(sorted(lacks))}")
        if count:
            self._report(count, incomplete)

    def _report(self, count: int, named: Collection[str]) -> None:
        text = f"{count} samples are incomplete: {'; '.join(named)}{'; ...' if count > len(named) else ''}"
        if not self._drops:
            raise S3FormatError(f'{text}. missing="drop" leaves them out')
        _log.warning("%s. They are left out", text)

    def _hashes(self) -> array[int]:
        """A number for each object, equal for those of one sample."""
        hashes = array("q")
        for i, row in enumerate(self._rows):
            parts = self._split(row.key)
            name = f"{row.bucket}/{parts[0]}" if parts else f"/{i}"
            digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            hashes.append(int.from_bytes(digest, "little", signed=True))
        return hashes

    def _samples(self, numbers: Iterable[int]) -> Iterable[SampleRow]:
        """The sample of some objects; several, if their names have the same hash by accident."""
        found: dict[tuple[str, str], dict[str | None, Part]] = {}
        for number in numbers:
            row = self._rows.row(number)
            parts = self._split(row.key)
            if parts is None:
                continue
            sample = found.setdefault((row.bucket, parts[0]), {})
            if parts[1] in sample or parts[1] in (KEY, URL):
                raise S3FormatError(
                    f"the sample {parts[0]!r} has two objects that would be {parts[1]!r}, one of them {row.key!r}"
                )
            sample[parts[1]] = Part(row, parts[1])
        return [SampleRow(name, list(sample.values())) for (_, name), sample in found.items()]


def _together(hashes: array[int]) -> Iterator[list[int]]:
    """The places of equal numbers, grouped, in the order of the first place of each group.

    Not by PyTorch, whose threads hang in workers that are forked later.
    """
    ordered = array("Q", sorted(range(len(hashes)), key=hashes.__getitem__))  # stable
    begins = array("Q")
    before: int | None = None
    for place, number in enumerate(ordered):
        if hashes[number] != before:
            begins.append(place)
            before = hashes[number]
    begins.append(len(ordered))
    for group in sorted(range(len(begins) - 1), key=lambda group: ordered[begins[group]]):
        yield ordered[begins[group] : begins[group + 1]].tolist()
