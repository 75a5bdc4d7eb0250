"""One pass over a streaming dataset, in one process: a DataLoader's worker, or the main one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
        counters: what workers add their numbers to, by part of the contents.
    """

    contents: Contents
    look_ahead: int | None
    counters: Counters


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
                sample = self._replacement(error, progress)
            except BaseException:
                self._leave_sample(progress)
                del self  # as in ``Samples``
                raise
        chosen = self._samples.handed.chosen
        tally = self._tallies[chosen.part if chosen is not None else 0]
        tally.samples += 1
        tally.transform_ns += perf_counter_ns() - before
        progress.samples += 1
        self._since_added += 1
        if self._since_added >= _ADDED_TOGETHER:
            self._add()
        return sample

    def _start(self) -> Progress:
        progress = self._progress = self._begin()
        making = self._making
        numbers = progress.plan.samples(progress.worker, progress.workers, progress.first)
        sources = [part.source for part in making.contents.parts]
        self._samples = Samples(map(self._chosen, numbers), sources, making.look_ahead)
        making.counters.begin_epoch(progress.start.epoch)
        for source in sources:
            source.hits.take()  # by others, and by the parent of a forked worker
        return progress

    def _chosen(self, number: int) -> Chosen:
        part, number = self._making.contents.place(number)
        of_part = self._making.contents.parts[part]
        item = of_part.objects[number]
        self._tallies[part].bytes += size_of(item)
        return Chosen(of_part.source, item, part)

    def _add(self) -> None:
        """Add to the counters what was done since it was added last."""
        self._since_added = 0
        for number, (part, tally) in enumerate(zip(self._making.contents.parts, self._tallies, strict=True)):
            usage = part.source.client._runtime().take_usage()
            self._making.counters.add(number, [*tally.take(), *usage, part.source.hits.take()])

    def _replacement(self, error: BaseException, progress: Progress) -> Any:
        """A sample in place of the one that failed.

        Raises:
            S3FormatError: there were too many errors in this epoch, or no sample is good.
            BaseException: it is none that another sample can take the place of.
        """
        contents, order, position = self._making.contents, progress.plan.order, progress.next_position
        number, in_part = contents.place(order.sample_at(position))
        part, tally = contents.parts[number], self._tallies[number]
        replacements = _bad_samples.candidates(order.seed, order.epoch, position, len(part.objects))
        while True:
            tally.errors += 1
            if part.most_errors is None or not _bad_samples.is_of_content(error):
                raise error
            item = part.objects[in_part]
            count = self._making.counters.note_error(number, order.epoch)
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

    def _leave_sample(self, progress: Progress) -> None:
        """Go to the next sample; or to the next batch, if the caller has lost this one, and asks for a whole one."""
        progress.samples += 1
        while self._in_batches and progress.samples % progress.plan.deal.batch_size:
            self._samples.skip()
            progress.samples += 1
        self._add()
