"""One pass over a streaming dataset, in one process: a DataLoader's worker, or the main one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

from s3torchconnector._datasets import _bad_samples
from s3torchconnector._datasets._contents import Contents
from s3torchconnector._datasets._counters import Counters, Tally
from s3torchconnector._datasets._epochs import Start
from s3torchconnector._datasets._plan import Plan
from s3torchconnector._early_samples import Chosen, Samples
from s3torchconnector._samples._items import name_of, size_of
from s3torchconnector._threaded_samples import ThreadedSamples

_ADDED_TOGETHER = 16  # samples


@dataclass
class Progress:
    """How far a pass has come in one process.

    Attributes:
        start: where the pass began, in all processes.
        plan: what it consists of.
        worker, workers: whose batches of the rank are made here.
        first: the number of the first batch made here, of those of this worker.
        samples: how many have been handed out here.
        ended: whether there are no more.
    """

    start: Start
    plan: Plan
    worker: int = 0
    workers: int = 1
    first: int = 0
    samples: int = 0
    ended: bool = False

    @property
    def next_batch(self) -> int:
        """The number of the next batch, of those of this worker; the last one may have fewer samples."""
        return self.first + -(-self.samples // self.plan.deal.batch_size)

    @property
    def position(self) -> int:
        """The position in the epoch, if this process makes all batches of its rank."""
        deal, handed = self.plan.deal, self.first * self.plan.deal.batch_size + self.samples
        if self.ended:
            return deal.samples
        if handed >= deal.samples_of(self.plan.rank):
            return deal.position_after(deal.batches(self.plan.rank))
        batches, rest = divmod(handed, deal.batch_size)
        # Within a batch, what ranks have handed out is a prefix of the epoch only if there is one.
        return deal.position_after(batches) + (rest if deal.replicas == 1 else 0)

    @property
    def next_position(self) -> int:
        """The position of the sample that is handed out here next."""
        batches, rest = divmod(self.samples, self.plan.deal.batch_size)
        return self.plan.positions(self.worker + (self.first + batches) * self.workers)[rest]


@dataclass(frozen=True)
class Making:
    """How the samples of a dataset are made; see ``S3StreamingDataset``.

    Attributes:
        contents: what they are.
        look_ahead: most objects that are fetched ahead.
        threads: that run transforms; 0 if the thread that iterates does.
        counters: what workers add their numbers to, by part of the contents.
    """

    contents: Contents
    look_ahead: int | None
    threads: int
    counters: Counters

    def samples(self, chosen: Iterable[Chosen], batch_size: int) -> Samples[Chosen]:
        """The samples of objects, in order."""
        sources = [part.source for part in self.contents.parts]
        if not self.threads:
            return Samples(chosen, sources, self.look_ahead)
        return ThreadedSamples(chosen, sources, self.look_ahead, self.threads, max(batch_size, 2 * self.threads))


class Pass(Iterator[Any]):
    """The samples of one pass in this process. It begins when the first one is asked for.

    Args:
        making: how samples are made.
        begin: begins the pass.
        in_batches: whether the caller takes whole batches: after an error it then goes on with the next batch.
    """

    def __init__(self, making: Making, begin: Callable[[], Progress], in_batches: bool) -> None:
        self._making = making
        self._begin = begin
        self._in_batches = in_batches
        self._progress: Progress | None = None
        self._tallies = [Tally() for _ in making.contents.parts]
        self._since_added = 0
        self._samples: Samples[Chosen]

    def __next__(self) -> Any:
        progress = self._progress or self._start()
        before = perf_counter_ns()
        try:
            sample = next(self._samples)
        except StopIteration:
            progress.ended = True
            self._add()
            raise
        except BaseException as error:
            try:
                sample = _replacement(self._making, self._tallies, error, progress)
            except BaseException:
                self._leave_sample(progress)
                del self  # as in ``Samples``
                raise
        handed = self._samples.handed
        tally = self._tallies[handed.chosen.part if handed.chosen is not None else 0]
        tally.samples += 1
        tally.transform_ns += perf_counter_ns() - before if handed.nanoseconds is None else handed.nanoseconds
        progress.samples += 1
        self._since_added += 1
        if self._since_added >= _ADDED_TOGETHER:
            self._add()
        return sample

    def _start(self) -> Progress:
        progress = self._progress = self._begin()
        making = self._making
        numbers = progress.plan.samples(progress.worker, progress.workers, progress.first)
        self._samples = making.samples(_chosen(making.contents, self._tallies, numbers), progress.plan.deal.batch_size)
        making.counters.begin_epoch(progress.start.epoch)
        for part in making.contents.parts:
            part.source.hits.take()  # by others, and by the parent of a forked worker
        return progress

    def _add(self) -> None:
        """Add to the counters what was done since it was added last."""
        self._since_added = 0
        for number, (part, tally) in enumerate(zip(self._making.contents.parts, self._tallies, strict=True)):
            usage = part.source.client._runtime().take_usage()
            self._making.counters.add(number, [*tally.take(), *usage, part.source.hits.take()])

    def _leave_sample(self, progress: Progress) -> None:
        """Go to the next sample; or to the next batch, if the caller has lost this one, and asks for a whole one."""
        progress.samples += 1
        while self._in_batches and progress.samples % progress.plan.deal.batch_size:
            self._samples.skip()
            progress.samples += 1
        self._add()


def _chosen(contents: Contents, tallies: Sequence[Tally], numbers: Iterable[int]) -> Iterator[Chosen]:
    """What samples are made of. (No method of the pass, which would be kept by what it keeps.)"""
    parts = contents.parts
    for number in numbers:
        part, number_there = contents.place(number)
        of_part = parts[part]
        item = of_part.objects[number_there]
        tallies[part].bytes += size_of(item)
        yield Chosen(of_part.source, item, part)


def _replacement(making: Making, tallies: Sequence[Tally], error: BaseException, progress: Progress) -> Any:
    """A sample in place of the one that failed. (No method of the pass, which the error's traceback would keep.)

    Raises:
        S3FormatError: there were too many errors in this epoch, or no sample is good.
        BaseException: it is none that another sample can take the place of.
    """
    contents, order, position = making.contents, progress.plan.order, progress.next_position
    number, in_part = contents.place(order.sample_at(position))
    part, tally = contents.parts[number], tallies[number]
    replacements = _bad_samples.candidates(order.seed, order.epoch, position, len(part.objects))
    while True:
        tally.errors += 1
        if part.most_errors is None or not _bad_samples.is_of_content(error):
            raise error
        item = part.objects[in_part]
        count = making.counters.note_error(number, order.epoch)
        in_part = next(replacements, -1)
        if count > part.most_errors or in_part < 0:
            raise _bad_samples.too_many(error, item.bucket, name_of(item), count, part.most_errors) from error
        _bad_samples.log(error, item.bucket, name_of(item), count)
        try:
            sample = next(Samples.of(part.source, [part.objects[in_part]], 0))
        except BaseException as another:
            error = another
        else:
            tally.replaced += 1
            return sample
