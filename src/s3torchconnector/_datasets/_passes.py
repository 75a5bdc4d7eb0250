"""The pass of a streaming dataset that this process is in, and its states to save and load."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from s3torchconnector._datasets import _loader_state
from s3torchconnector._datasets._contents import Contents
from s3torchconnector._datasets._deal import Deal, Tail
from s3torchconnector._datasets._epochs import Epochs, Start
from s3torchconnector._datasets._pass import Progress
from s3torchconnector._datasets._plan import Plan
from s3torchconnector._datasets._shared_out_twice import is_set_by_accelerate, refuse_second_sharding
from s3torchconnector._datasets._state import resume_at, state_of
from s3torchconnector._datasets._worker import in_worker, this_worker
from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._ranks import Rank, environment_rank, group_rank

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dealing:
    """How samples are dealt to ranks.

    Attributes:
        batch_size, tail: see ``Deal``.
        by_size: whether ranks get about as many bytes at each step.
        rank: whose passes they are; None means the process's rank, whatever it is at the time.
        nodes: canonical nodes, see ``Deal``.
    """

    batch_size: int
    tail: Tail
    by_size: bool
    rank: Rank | None
    nodes: int = 1


class Passes:
    """The passes of one dataset. It goes to workers with the dataset, and the epochs are shared with them.

    Args:
        contents: the samples.
        dealing: how they are dealt to ranks.

    Attributes:
        epochs: which epoch a pass is.
        by_loader: whether an ``S3DataLoader`` starts its workers now.
        serial: of the passes that were begun by an ``S3DataLoader``.
    """

    def __init__(self, contents: Contents, dealing: Dealing) -> None:
        self.epochs = Epochs()
        self.batch_size = dealing.batch_size
        self.by_loader = False
        self.serial = 0
        self._contents = contents
        self._dealing = dealing
        self._has_warned = False
        self._pickled_rank: Rank | None = None
        self._progress: Progress | None = None  # of the latest pass that this process has begun
        # By a StatefulDataLoader, in a worker: where the next pass begins; where the pass without a sample begins.
        self._restored: tuple[Start, int] | None = None
        self._upcoming: tuple[Start, int] | None = None

    def prepare(self) -> tuple[bool, tuple[Start, int] | None]:
        """What ``begin`` needs to know, as it is now: a pass is asked for, and begins at its first sample."""
        self._refuse_second_sharding()
        self._progress = None
        restored, self._restored = self._restored, None
        self._upcoming = restored
        return self.by_loader, restored

    def begin(self, by_loader: bool, restored: tuple[Start, int] | None) -> Progress:
        """Begin a pass in this process."""
        worker, workers = this_worker()
        if restored is not None:
            self._progress = Progress(restored[0], self.plan(restored[0]), worker, workers, restored[1])
        else:
            start = self.epochs.assigned() if by_loader else self.epochs.begin()
            self._progress = Progress(start, self.plan(start), worker, workers)
        if not worker:
            self._warn_of_wandering(self._progress.plan.deal)
        return self._progress

    def _warn_of_wandering(self, deal: Deal) -> None:
        if deal.global_batch % deal.nodes and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "batch_size times ranks is %d, no multiple of canonical_nodes=%d: some samples go to other nodes than "
                "in the epoch before, whose caches do not have them",
                deal.global_batch,
                deal.nodes,
            )

    def begin_by_loader(self, start: Start | None) -> Start:
        """Begin a pass for an ``S3DataLoader``, which resets ``by_loader`` once its workers have started.

        ``start`` is that of a pass that has handed out nothing, which begins again.
        """
        start = start or self.epochs.begin()
        self.epochs.assign(start)
        self.by_loader = True
        self.serial += 1
        return start

    def set_epoch(self, epoch: int) -> None:
        """Have the next pass be this epoch, or the rest of it that it is already; see ``S3StreamingDataset.set_epoch``.

        Raises:
            S3ConfigurationError: no epoch has such a number; or Accelerate counts from 0 after a state was loaded.
        """
        self._refuse_second_sharding()
        upcoming = None if self.epochs.has_begun() else self.epochs.latest()
        if upcoming is not None and upcoming.epoch == epoch:
            return
        if upcoming is not None and upcoming.position and is_set_by_accelerate():
            raise S3ConfigurationError(
                f"the loaded state continues in epoch {upcoming.epoch}, but Accelerate begins with epoch "
                f"{epoch}: leave the loader out of accelerator.prepare(), or call set_epoch on what that returned"
            )
        self.start_at(Start(epoch))

    def start_at(self, start: Start) -> None:
        """Have the next pass begin here, also in workers that run already."""
        self.epochs.set(start)
        self._progress = None

    def plan(self, start: Start) -> Plan:
        """The pass that begins there."""
        rank, replicas = self.ranks()
        dealing = self._dealing
        deal = Deal(self._contents.samples, replicas, self.batch_size, dealing.tail, start.position, dealing.nodes)
        sizes = self._contents.sizes if dealing.by_size and replicas > 1 else None
        return Plan(deal, rank, self._contents.order(start.epoch), sizes)

    def ranks(self) -> Rank:
        """The current share of this process."""
        return self._dealing.rank or group_rank() or (self._pickled_rank if in_worker() else None) or environment_rank()

    def state(self, batches: int | None) -> dict[str, Any]:
        """Where this job is; see ``S3StreamingDataset.state_dict``.

        Raises:
            S3ConfigurationError: only the DataLoader knows it, and ``batches`` was not given.
        """
        latest = self.epochs.latest()
        if batches is not None:
            return self.state_at(latest.epoch, self.plan(latest).deal.position_after(batches))
        if in_worker():
            return self._state_of_worker()
        if self._progress is not None:
            return self.state_at(self._progress.start.epoch, self._progress.position)
        if self.epochs.has_begun():
            raise S3ConfigurationError(
                "only the DataLoader knows how many batches it has returned: use S3DataLoader and its state_dict(), "
                "or count them and call dataset.state_dict(batches=...)"
            )
        return self.state_at(*latest)

    def state_at(self, epoch: int, position: int) -> dict[str, Any]:
        """The state of a job that has handed out the samples before a position."""
        return state_of(self._contents.settings, epoch, position, self.batch_size, self.ranks().size)

    def load(self, state: Mapping[str, Any]) -> None:
        """Have the next pass go on where the state was saved; see ``S3StreamingDataset.load_state_dict``.

        Raises:
            S3ConfigurationError: it is not a state, or the state of something else.
        """
        if in_worker():
            self._restore_worker(state)
            return
        if _loader_state.is_of_loader(state):
            state = _loader_state.position_of_loader(state, self._dealing.tail)
        self.start_at(Start(*resume_at(state, self._contents.settings)))

    def _state_of_worker(self) -> dict[str, Any]:
        if self._progress is not None:
            start, batch = self._progress.start, self._progress.next_batch
        else:
            start, batch = self._restored or self._upcoming or (self.epochs.upcoming(), 0)
        return _loader_state.of_worker(self.state_at(*start), *this_worker(), batch)

    def _restore_worker(self, state: Mapping[str, Any]) -> None:
        resume_at(state, self._contents.settings)
        _loader_state.check_topology(state, self.batch_size, self.ranks().size, *this_worker())
        self._restored = Start(state["epoch"], state["position"]), state["next"]
        self._progress = None
        self.epochs.mark(state["epoch"])

    def _refuse_second_sharding(self) -> None:
        refuse_second_sharding(
            self.ranks().size,
            "Do not pass its DataLoader to accelerator.prepare(), or let Accelerate share out alone: "
            "S3StreamingDataset(..., num_replicas=1, rank=0)",
        )

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker has no process group: it is told its parent's rank.
        self._refuse_second_sharding()
        return {**self.__dict__, "_pickled_rank": group_rank(), "_progress": None}
