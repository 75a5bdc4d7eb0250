"""What the samples of a streaming dataset are: which objects, in which order, and how each is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, Protocol

from s3torchconnector._dataset_source import DatasetSource, ObjectTable
from s3torchconnector._datasets import _node_order, _order
from s3torchconnector._datasets._node_order import NodeOrder
from s3torchconnector._datasets._order import AnyOrder, Order
from s3torchconnector._datasets._state import Settings
from s3torchconnector._s3bucket_key_data import S3BucketKeyData


class Listed(ObjectTable, Protocol):
    """The objects of a manifest."""

    @property
    def fingerprint(self) -> str: ...

    def _sizes_of(self, numbers: Sequence[int]) -> list[int]: ...


@dataclass(frozen=True)
class Part:
    """The objects of one manifest, and how samples are made of them.

    Attributes:
        source: opens objects, and has the transform.
        objects: by number.
        seed, shuffle: see ``Order``.
        nodes: canonical nodes, see ``NodeOrder``.
        most_errors: how many bad samples may be replaced in an epoch; None raises the first error.
        name: of a source in a mix.
    """

    source: DatasetSource
    objects: Listed
    seed: int
    shuffle: bool
    most_errors: int | None
    nodes: int = 1
    name: str = ""

    @property
    def fingerprint(self) -> str:
        """What saved states call the objects."""
        return self.objects.fingerprint[:32]


class Place(NamedTuple):
    """Where a sample is: the number of its part, and its own number in that."""

    part: int
    number: int


class Contents(ABC):
    """The samples of a dataset, numbered from part to part.

    Args:
        parts: what they are made of.
        samples: positions of an epoch.
        settings: what saved states must agree with.
    """

    def __init__(self, parts: Sequence[Part], samples: int, settings: Settings) -> None:
        self.parts = parts
        self.samples = samples
        self.settings = settings
        self._ends = list(accumulate(len(part.objects) for part in parts))

    @abstractmethod
    def order(self, epoch: int) -> AnyOrder:
        """Which sample is at which position of an epoch."""

    def place(self, number: int) -> Place:
        """Where a sample is."""
        if len(self.parts) == 1:
            return Place(0, number)
        part = bisect_right(self._ends, number)
        return Place(part, number - (self._ends[part - 1] if part else 0))

    def object(self, number: int) -> S3BucketKeyData:
        """The object of a sample."""
        part, number = self.place(number)
        return self.parts[part].objects[number]

    def sizes(self, numbers: Sequence[int]) -> list[int]:
        """The sizes of samples, in bytes."""
        if len(self.parts) == 1:
            return self.parts[0].objects._sizes_of(numbers)
        places = map(self.place, numbers)
        return [size for part, number in places for size in self.parts[part].objects._sizes_of([number])]


class OfOnePart(Contents):
    """The samples of one manifest."""

    def __init__(self, part: Part) -> None:
        self._part = part
        samples = len(part.objects)
        name = _order.NAME if part.nodes == 1 else _node_order.name_of(part.nodes)
        super().__init__([part], samples, Settings(part.fingerprint, samples, part.seed, part.shuffle, name))

    def order(self, epoch: int) -> AnyOrder:
        part = self._part
        if part.nodes == 1:
            return Order(part.seed, epoch, self.samples, shuffle=part.shuffle)
        return NodeOrder(part.seed, epoch, self.samples, part.nodes, shuffle=part.shuffle)
