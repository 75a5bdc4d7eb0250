"""``S3DataLoader``: a DataLoader that knows how far training has come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

from torch.utils.data import DataLoader

from s3torchconnector._datasets._epochs import Start
from s3torchconnector._datasets._passes import Passes
from s3torchconnector._datasets._plan import Plan
from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector.s3streaming_dataset import S3StreamingDataset

__all__ = ["S3DataLoader"]

_DATASETS_OWN = ("shuffle", "sampler", "batch_sampler", "drop_last")


class S3DataLoader(DataLoader[Any]):
    """Loads the batches of an ``S3StreamingDataset``, and knows how far training has come.

    A ``torch.utils.data.DataLoader`` with all its options except those that belong to the dataset: order, batch size,
    ``drop_last``. ``state_dict`` counts the batches that the program has received, not those that workers have
    prepared.

    Args:
        dataset: what to load.
        options: those of ``DataLoader``: ``num_workers``, ``pin_memory``, ``persistent_workers`` and so on.

    Raises:
        S3ConfigurationError: an option contradicts the dataset.

    Example:
        >>> from s3torchconnector import S3DataLoader, S3StreamingDataset
        >>> dataset = S3StreamingDataset(
        ...     "s3://my-bucket/images/", region="us-east-1", transform=lambda reader: len(reader.read()), batch_size=2
        ... )
        >>> state = next(iter(loader := S3DataLoader(dataset))) is not None and loader.state_dict()
        >>> loader.load_state_dict(state)
        >>> [len(batch) for batch in loader]
        [1]
    """

    dataset: S3StreamingDataset

    def __init__(self, dataset: S3StreamingDataset, **options: Any) -> None:
        if not isinstance(dataset, S3StreamingDataset):
            raise TypeError(f"S3DataLoader loads an S3StreamingDataset, not {type(dataset).__name__}: use DataLoader")
        for name in _DATASETS_OWN:
            if options.pop(name, None):
                raise S3ConfigurationError(f"{name} belongs to the dataset: pass it to S3StreamingDataset")
        if options.pop("batch_size", dataset.batch_size) != dataset.batch_size:
            raise S3ConfigurationError(
                f"the dataset's batch_size is {dataset.batch_size}: pass batch_size to S3StreamingDataset, which "
                "decides which rank gets what"
            )
        self._handed: _Handed | None = None  # in the latest pass
        self._wait_ns = 0
        self._last_stats: dict[str, Any] = {}
        self._ordered = options.get("in_order", True)
        super().__init__(dataset, batch_size=dataset.batch_size, **options)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # DataLoader says that it returns a class of its own
        """Begin a pass: the first one after ``load_state_dict`` or ``set_epoch`` where they say, any other one at the
        beginning of the next epoch. Iterators of earlier passes end.
        """
        # An iterator that handed out nothing was no pass.
        unused = self._handed is not None and self._handed.is_unused and self._passes.epochs.has_begun()
        start = self._passes.begin_by_loader(self._handed.start if self._handed is not None and unused else None)
        try:
            batches = super().__iter__()
        finally:
            self._passes.by_loader = False
        self._handed = _Handed(start, self._passes.plan(start))
        return _Batches(self, batches, self._handed)

    def state_dict(self) -> dict[str, Any]:
        """Where training is: after the batch that was handed out last. Equal on all ranks at the same step.

        Raises:
            S3ConfigurationError: ``in_order=False``: the batches that were returned need not be the first ones of the
                epoch.
        """
        if not self._ordered:
            raise S3ConfigurationError("with in_order=False, no state tells which samples were seen: leave it True")
        handed = self._handed
        if handed is None or not self._passes.epochs.has_begun():
            return self._passes.state_at(*self._passes.epochs.latest())
        return self._passes.state_at(handed.start.epoch, handed.position)

    def stats(self) -> dict[str, Any]:
        """What the loader and its workers have done so far, and under ``"since_last_call"`` since ``stats`` was called
        last. A worker adds its numbers every 16 samples.

        Returns:
            ``samples``; ``bytes`` of the objects that were opened; ``wait_seconds`` that the program has waited for
            batches; ``transform_seconds`` that transforms took in all workers together, with the time in which they
            waited for bytes; ``errors`` of transforms, and samples that were ``replaced`` since they failed;
            ``requests`` that were sent for objects, each time that one was sent again included, and ``retries``, those
            of them that followed a failure; ``cache_hits``, the objects that an ``S3Cache`` had. Of a mix, ``sources``
            has these numbers for each source.
        """
        parts, counters = self.dataset._making.contents.parts, self.dataset._making.counters
        of_parts = [_in_seconds(counters.totals(number)) for number in range(len(parts))]
        now = {"wait_seconds": self._wait_ns / 1e9}
        now |= {name: sum(of_part[name] for of_part in of_parts) for name in of_parts[0]}
        since = {name: value - self._last_stats.get(name, 0) for name, value in now.items()}
        self._last_stats = now
        named = {part.name: of_part for part, of_part in zip(parts, of_parts, strict=True) if part.name}
        return {**now, "since_last_call": since, **({"sources": named} if named else {})}

    @property
    def _passes(self) -> Passes:
        return self.dataset._passes

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the next pass continue where the state was saved, see ``S3StreamingDataset.load_state_dict``."""
        self.dataset.load_state_dict(state)


def _in_seconds(totals: dict[str, int]) -> dict[str, float]:
    seconds = totals.pop("transform_ns") / 1e9
    return {**totals, "transform_seconds": seconds}


@dataclass
class _Handed:
    """What a pass has handed out. Its iterator is not kept here: when the program drops that, its workers end.

    Attributes:
        start: where the pass began.
        plan: what it consists of.
        batches: how many the program has had.
        failed: how many were errors since the last good one.
        ended: whether there are no more.
    """

    start: Start
    plan: Plan
    batches: int = 0
    failed: int = 0
    ended: bool = False

    @property
    def is_unused(self) -> bool:
        """Whether the program has had nothing, not even an error or the end."""
        return not (self.batches or self.failed or self.ended)

    @property
    def position(self) -> int:
        """The position in the epoch after the batches that the program has had."""
        deal = self.plan.deal
        return deal.samples if self.ended else deal.position_after(self.batches)


class _Batches(Iterator[Any]):
    """The batches of one pass, counted."""

    def __init__(self, loader: S3DataLoader, batches: Iterator[Any], handed: _Handed) -> None:
        self._loader = loader
        self._batches = batches
        self._handed = handed
        self._serial = loader._passes.serial

    def __next__(self) -> Any:
        """The next batch.

        After an error, the next call goes on with the batch after the one that failed.

        Raises:
            S3ConfigurationError: another pass over the dataset was begun.
        """
        if self._serial != self._loader._passes.serial:
            raise S3ConfigurationError(
                "another pass over this dataset was begun, by this loader or another one: give each loader that is "
                "used at the same time a dataset of its own"
            )
        handed, before = self._handed, perf_counter_ns()
        try:
            batch = next(self._batches)
        except StopIteration:
            handed.ended = True
            raise
        except Exception:
            handed.failed += 1  # it counts once the program goes on: resumed now, it is made again
            raise
        finally:
            self._loader._wait_ns += perf_counter_ns() - before
        handed.batches += 1 + handed.failed
        handed.failed = 0
        return batch
