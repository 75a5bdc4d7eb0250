"""Samples of a dataset's objects, each fetched before it is needed, and made in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from s3torchconnector._dataset_source import DatasetSource
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._samples._dicts import ArchiveSample, GroupSample
from s3torchconnector._transfer import OpenRuntime, look_ahead
from s3torchconnector.s3reader import S3Reader


class Foreign:
    """What a ``reader_constructor`` returned that is not an ``S3Reader``, in the form that ``look_ahead`` takes."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def _start_early(self, likely_size: int | None) -> bool:
        return False

    def _hand_out(self) -> int | None:
        return None

    def close(self) -> None:
        """Do nothing: it belongs to the program."""


OpenedEarly = S3Reader | ArchiveSample | GroupSample | Foreign
"""What a source opens, in the form that ``look_ahead`` takes."""


class Chosen(NamedTuple):
    """An object of which a sample is to be made.

    Attributes:
        source: opens the object, and has the transform.
        item: the object.
        part: which of the dataset's sources that is.
    """

    source: DatasetSource
    item: S3BucketKeyData
    part: int = 0

    def open(self) -> OpenedEarly:
        """Open the object. No request is made."""
        opened: object = self.source.open_early(self.item)
        return opened if isinstance(opened, S3Reader | ArchiveSample | GroupSample) else Foreign(opened)

    def transform(self, opened: OpenedEarly) -> Any:
        """The sample of the object that was opened.

        Raises:
            RuntimeError: the transform raised ``StopIteration``, which would say that there are no more samples.
        """
        try:
            transform: Callable[[Any], Any] = self.source.transform
            return transform(opened if isinstance(opened, S3Reader) else opened.file)
        except StopIteration as error:
            raise RuntimeError("the transform raised StopIteration") from error


class Handed:
    """How many samples an iterator has handed out, and which one last."""

    count = 0
    chosen: Chosen | None = None

    def note(self, chosen: Chosen) -> None:
        """One more."""
        self.chosen = chosen
        self.count += 1


class Samples(Iterator[Any]):
    """Transformed samples of objects that are fetched before they are needed.

    A transform that raises costs its own sample: the next call goes on with the next one. When the iterator is
    dropped, what is in flight is cancelled.

    Args:
        chosen: the objects, in order.
        sources: all that they may have.
        most: how many of the next ones are fetched at most, besides the one that is used.

    Attributes:
        handed: what has been handed out, with the samples that failed.
    """

    def __init__(self, chosen: Iterable[Chosen], sources: Sequence[DatasetSource], most: int | None) -> None:
        self._opened = opened = deque[Chosen]()

        def open_early(each: Chosen) -> OpenedEarly:
            reader = each.open()
            opened.append(each)
            return reader

        self._readers = look_ahead(map(open_early, chosen), _runtimes(sources), most)
        self.handed = Handed()

    @classmethod
    def of(cls, source: DatasetSource, items: Iterable[S3BucketKeyData], most: int | None) -> Samples:
        """The samples of one source's objects."""
        return cls((Chosen(source, item) for item in items), [source], most)

    def __next__(self) -> Any:
        reader = next(self._readers)
        chosen = self._opened.popleft()
        self.handed.note(chosen)
        try:
            return chosen.transform(reader)
        except BaseException:
            del self  # or else the traceback would keep what is in flight, as long as the error is kept
            raise

    def skip(self) -> None:
        """Leave out the next sample, if there is one."""
        reader = next(self._readers, None)
        if reader is not None:
            self._opened.popleft()
            reader.close()

    def close(self) -> None:
        """Cancel what is in flight: there are no more samples."""
        self._readers.close()


def _runtimes(sources: Sequence[DatasetSource]) -> list[OpenRuntime]:
    """What the clients of sources have in a process; of clients that share all of it, that of one."""
    distinct: list[DatasetSource] = []
    for each in sources:
        if not any(_shares(each, other) for other in distinct):
            distinct.append(each)
    return [source.client._runtime for source in distinct]


def _shares(one: DatasetSource, other: DatasetSource) -> bool:
    return (one.region, one.endpoint, one.s3client_config) == (other.region, other.endpoint, other.s3client_config)
