"""One pass over a streaming dataset, in one process: a DataLoader's worker, or the main one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

from s3torchconnector._dataset_source import DatasetSource, Samples
from s3torchconnector._datasets import _bad_samples
from s3torchconnector._datasets._counters import Counters, Tally
from s3torchconnector._datasets._epochs import Start
from s3torchconnector._datasets._order import Order
from s3torchconnector._datasets._plan import Plan
from s3torchconnector._s3bucket_key_data import S3BucketKeyData

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
        batch = self.worker + (self.first + batches) * self.workers
        return [each for part in self.plan.deal.positions(self.plan.rank, batch) for each in part][rest]


@dataclass(frozen=True)
class Making:
    """How the samples of a dataset are made; see ``S3StreamingDataset``.

    Attributes:
        source: opens objects.
        objects: those of a manifest, by number.
        look_ahead: most that are fetched ahead.
        most_errors: how many bad samples may be replaced in an epoch; None raises the first error.
        counters: what workers add their numbers to.
    """

    source: DatasetSource
    objects: Callable[[int], S3BucketKeyData]
    look_ahead: int | None
    most_errors: int | None
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
        self._tally = Tally()
        self._samples: Samples
        self._order: Order

    def __next__(self) -> Any:
        progress = self._progress or self._start()
        before = perf_counter_ns()
        try:
            sample = next(self._samples)
        except StopIteration:
            progress.ended = True
            self._making.counters.add(self._tally)
            raise
        except BaseException as error:
            try:
                sample = self._replacement(error, progress)
            except BaseException:
                self._leave_sample(progress)
                del self  # as in ``Samples``
                raise
        tally = self._tally
        tally.samples += 1
        tally.transform_ns += perf_counter_ns() - before
        progress.samples += 1
        if tally.samples >= _ADDED_TOGETHER:
            self._making.counters.add(tally)
        return sample

    def _start(self) -> Progress:
        progress = self._progress = self._begin()
        self._order = progress.plan.order
        numbers = progress.plan.samples(self._order, progress.worker, progress.workers, progress.first)
        self._samples = self._making.source.samples(map(self._object, numbers), self._making.look_ahead)
        self._making.counters.begin_epoch(progress.start.epoch)
        return progress

    def _object(self, number: int) -> S3BucketKeyData:
        item = self._making.objects(number)
        if item.object_info is not None:
            self._tally.bytes += item.object_info.size
        return item

    def _replacement(self, error: BaseException, progress: Progress) -> Any:
        """A sample in place of the one that failed.

        Raises:
            S3FormatError: there were too many errors in this epoch, or no sample is good.
            BaseException: it is none that another sample can take the place of.
        """
        making, plan, position = self._making, progress.plan, progress.next_position
        number = self._order.sample_at(position)
        replacements = _bad_samples.candidates(plan.seed, plan.epoch, position, plan.deal.samples)
        while True:
            self._tally.errors += 1
            if making.most_errors is None or not _bad_samples.is_of_content(error):
                raise error
            item = making.objects(number)
            count = making.counters.note_error(plan.epoch)
            number = next(replacements, -1)
            if count > making.most_errors or number < 0:
                raise _bad_samples.too_many(error, item.bucket, item.key, count, making.most_errors) from error
            _bad_samples.log(error, item.bucket, item.key, count)
            try:
                sample = next(making.source.samples([making.objects(number)], 0))
            except BaseException as another:
                error = another
            else:
                self._tally.replaced += 1
                return sample

    def _leave_sample(self, progress: Progress) -> None:
        """Go to the next sample; or to the next batch, if the caller has lost this one, and asks for a whole one."""
        progress.samples += 1
        while self._in_batches and progress.samples % progress.plan.deal.batch_size:
            self._samples.skip()
            progress.samples += 1
        self._making.counters.add(self._tally)
