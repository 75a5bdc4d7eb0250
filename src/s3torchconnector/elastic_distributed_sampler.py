"""``ElasticDistributedSampler``: the order and the state of ``S3StreamingDataset``, for datasets with an index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from typing import Any

from torch.utils.data import Sampler

from s3torchconnector._datasets import _streaming
from s3torchconnector._datasets._deal import Deal, Tail
from s3torchconnector._datasets._epochs import Start
from s3torchconnector._datasets._order import Order
from s3torchconnector._datasets._pass import Progress
from s3torchconnector._datasets._plan import Plan
from s3torchconnector._datasets._state import Settings, resume_at, state_of
from s3torchconnector._ranks import Rank, environment_rank, group_rank

__all__ = ["ElasticDistributedSampler"]


class ElasticDistributedSampler(Sampler[int]):
    """Indices for ``S3MapDataset``, or any dataset with a length, in the order of ``S3StreamingDataset``.

    Use it as PyTorch's ``DistributedSampler``. Each pass is a new epoch without a call to ``set_epoch``, and a state
    resumes on any number of ranks, with any batch size. Skipped indices cost no request.

    Args:
        dataset: what the indices are of.
        batch_size: that of the ``DataLoader``.
        shuffle, seed, drop_last, even_batches, num_replicas, rank: see ``S3StreamingDataset``.

    Raises:
        S3ConfigurationError: an argument cannot be used.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from s3torchconnector import ElasticDistributedSampler, S3MapDataset
        >>> dataset = S3MapDataset.from_prefix(
        ...     "s3://my-bucket/images/", region="us-east-1", transform=lambda reader: len(reader.read())
        ... )
        >>> sampler = ElasticDistributedSampler(dataset, batch_size=2)
        >>> for number, batch in enumerate(DataLoader(dataset, batch_size=2, sampler=sampler)):
        ...     print(len(batch), sampler.state_dict(batches=number + 1)["position"])
        2 2
        1 3
    """

    def __init__(
        self,
        dataset: Sized,
        *,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        even_batches: bool = True,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        _streaming.check_numbers(batch_size, seed, num_replicas, rank, None)
        self._given_rank = None if num_replicas is None or rank is None else Rank(rank, num_replicas)
        self._dataset = dataset
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._seed = seed
        self._tail: Tail = "drop" if drop_last else "even" if even_batches else "uneven"
        self._next = Start(0)
        self._progress: Progress | None = None

    @property
    def epoch(self) -> int:
        """The number of the latest pass, or of the first one before it begins."""
        return self._latest.epoch

    @property
    def _latest(self) -> Start:
        return self._next if self._progress is None else self._progress.start

    def set_epoch(self, epoch: int) -> None:
        """Have the next pass be this epoch, from its beginning. It is not needed."""
        self._next, self._progress = Start(epoch), None

    def __len__(self) -> int:
        """How many indices this rank gets in a whole epoch."""
        plan = self._plan(Start(0))
        return plan.deal.samples_of(plan.rank)

    def __iter__(self) -> Iterator[int]:
        """Begin a pass, when the first index is asked for."""
        start = self._next
        progress = self._progress = Progress(start, self._plan(start))
        self._next = Start(start.epoch + 1)
        for number in progress.plan.samples():
            progress.samples += 1
            yield number
        progress.ended = True

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """Where this job is, equal on all ranks at the same step.

        Args:
            batches: how many batches of the latest pass this rank has had. By default, the batches whose indices were
                returned. That is right for ``StatefulDataLoader``, and without workers, but too many for a
                ``DataLoader`` with workers, which fetches indices ahead.
        """
        progress = self._progress
        if progress is None:
            return self._state_at(*self._latest)
        position = progress.position if batches is None else progress.plan.deal.position_after(batches)
        return self._state_at(progress.start.epoch, position)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the next pass continue where the state was saved, on any number of ranks and with any batch size.

        Raises:
            S3ConfigurationError: it is the state of other objects, another seed or order, or none.
        """
        self._next, self._progress = Start(*resume_at(state, self._settings)), None

    def _state_at(self, epoch: int, position: int) -> dict[str, Any]:
        return state_of(self._settings, epoch, position, self._batch_size, self._ranks().size)

    @property
    def _settings(self) -> Settings:
        manifest = getattr(self._dataset, "manifest", None)
        fingerprint = "" if manifest is None else manifest.fingerprint[:32]
        return Settings(fingerprint, len(self._dataset), self._seed, self._shuffle)

    def _plan(self, start: Start) -> Plan:
        rank, replicas = self._ranks()
        deal = Deal(len(self._dataset), replicas, self._batch_size, self._tail, start.position)
        return Plan(deal, rank, Order(self._seed, start.epoch, deal.samples, shuffle=self._shuffle))

    def _ranks(self) -> Rank:
        return self._given_rank or group_rank() or environment_rank()
