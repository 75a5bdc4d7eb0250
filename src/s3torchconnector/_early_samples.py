"""Samples of a dataset's objects, each fetched before it is needed, and made in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from s3torchconnector._dataset_source import DatasetSource
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._samples._fetched import FetchedSample
from s3torchconnector._samples._items import name_sample
from s3torchconnector._transfer import OpenRuntime, look_ahead
from s3torchconnector.s3reader import S3Reader, SequentialS3Reader


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


OpenedEarly = S3Reader | FetchedSample | Foreign
"""What a source opens, in the form that ``look_ahead`` takes."""
# Tuples: a union in ``isinstance`` would be made again for each sample. The usual class comes first: an exact match is
# fast, while whether something is a subclass of ``S3Reader`` is asked of an abstract base.
_READERS = (SequentialS3Reader, S3Reader)
_OURS = (*_READERS, FetchedSample)


class Sample(Protocol):
    """One sample that is to be made, of an object that is fetched early."""

    @property
    def item(self) -> S3BucketKeyData | None:
        """The object; None if it is not known which one it will be."""

    def open(self) -> OpenedEarly:
        """Open the object. No request is made."""

    def transform(self, reader: OpenedEarly) -> Any:
        """Make the sample from the opened object."""


class Chosen(NamedTuple):
    """An object from which a sample will be made.

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
        return opened if isinstance(opened, _OURS) else Foreign(opened)

    def transform(self, opened: OpenedEarly) -> Any:
        """The sample of the object that was opened.

        Raises:
            RuntimeError: the transform raised ``StopIteration``, which would say that there are no more samples.
        """
        try:
            transform: Callable[[Any], Any] = self.source.transform
            return transform(opened if isinstance(opened, _READERS) else opened.file)
        except StopIteration as error:
            stopped = RuntimeError("the transform raised StopIteration")
            name_sample(stopped, self.item)
            raise stopped from error
        except Exception as error:
            name_sample(error, self.item)
            raise


_S = TypeVar("_S", bound=Sample)


class Handed(Generic[_S]):
    """How many samples an iterator has handed out, which one last, and how long its transform ran on a thread."""

    count = 0
    chosen: _S | None = None
    nanoseconds: int | None = None

    def note(self, chosen: _S) -> None:
        """One more."""
        self.chosen = chosen
        self.count += 1


class Samples(Iterator[Any], Generic[_S]):
    """Transformed samples of objects that are fetched before they are needed.

    A transform that raises costs its own sample: the next call goes on with the next one. When the iterator is
    dropped, what is in flight is cancelled.

    Args:
        chosen: the objects, in order.
        sources: all that they may have.
        most: how many of the next ones are fetched at most, besides the one that is used.
        allowed: whether they may be, each time. By default, they always may.

    Attributes:
        handed: what has been handed out, with the samples that failed.
    """

    def __init__(
        self,
        chosen: Iterable[_S],
        sources: Sequence[DatasetSource],
        most: int | None,
        allowed: Callable[[], bool] | None = None,
    ) -> None:
        self._opened = opened = deque[_S]()
        self._in_flight = in_flight = deque[OpenedEarly]()

        def open_early(each: _S) -> OpenedEarly:
            reader = each.open()
            opened.append(each)
            return reader

        self._readers = look_ahead(
            map(open_early, chosen), _runtimes(sources), most, allowed=allowed, in_flight=in_flight
        )
        self.handed = Handed[_S]()

    @staticmethod
    def of(source: DatasetSource, items: Iterable[S3BucketKeyData], most: int | None) -> Samples[Chosen]:
        """The samples of one source's objects."""
        return Samples[Chosen](map(partial(Chosen, source), items), [source], most)

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

    def leave(self) -> list[tuple[_S, OpenedEarly]]:
        """Make no more samples. Return the readers in flight; from now on, the caller must close them."""
        left = list(zip(self._opened, self._in_flight, strict=True))
        self._in_flight.clear()
        self._readers.close()
        return left

    def close(self) -> None:
        """Cancel what is in flight: there are no more samples."""
        self._readers.close()


def _runtimes(sources: Sequence[DatasetSource]) -> list[OpenRuntime]:
    """The runtimes of the sources' clients in a process; one for all clients that share everything."""
    distinct: list[DatasetSource] = []
    for each in sources:
        if not any(_shares(each, other) for other in distinct):
            distinct.append(each)
    return [source.client._runtime for source in distinct]


def _shares(one: DatasetSource, other: DatasetSource) -> bool:
    return (one.region, one.endpoint, one.s3client_config) == (other.region, other.endpoint, other.s3client_config)
