"""One pass over a streaming dataset, in one process: a DataLoader's worker, or the main one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import get_worker_info

from s3torchconnector._dataset_source import DatasetSource, Samples
from s3torchconnector._datasets._epochs import Start
from s3torchconnector._datasets._plan import Plan
from s3torchconnector._s3bucket_key_data import S3BucketKeyData


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


class Pass(Iterator[Any]):
    """The samples of one pass in this process. It begins when the first one is asked for.

    Args:
        source: opens objects.
        objects: a manifest's, by number.
        begin: begins the pass.
        look_ahead: see ``S3StreamingDataset``.
        in_batches: whether the caller takes whole batches: after an error it then goes on with the next batch.
    """

    def __init__(
        self,
        source: DatasetSource,
        objects: Callable[[int], S3BucketKeyData],
        begin: Callable[[], Progress],
        look_ahead: int | None,
        in_batches: bool,
    ) -> None:
        self._source = source
        self._objects = objects
        self._begin = begin
        self._look_ahead = look_ahead
        self._in_batches = in_batches
        self._progress: Progress | None = None
        self._samples: Samples

    def __next__(self) -> Any:
        progress = self._progress
        if progress is None:
            progress = self._progress = self._begin()
            numbers = progress.plan.samples(progress.worker, progress.workers, progress.first)
            items = (self._objects(number) for _, number in numbers)
            self._samples = self._source.samples(items, self._look_ahead)
        try:
            sample = next(self._samples)
        except StopIteration:
            progress.ended = True
            raise
        except BaseException:
            progress.samples += 1
            if self._in_batches:
                self._leave_batch(progress)
            del self  # as in ``Samples``
            raise
        progress.samples += 1
        return sample

    def _leave_batch(self, progress: Progress) -> None:
        """Go to the next batch: the caller has lost this one, and asks for a whole one again."""
        while progress.samples % progress.plan.deal.batch_size:
            self._samples.skip()
            progress.samples += 1


def in_worker() -> bool:
    """Whether this process is a DataLoader's worker."""
    return get_worker_info() is not None


def this_worker() -> tuple[int, int]:
    """The number of this DataLoader worker, and how many there are; (0, 1) in the main process."""
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)
