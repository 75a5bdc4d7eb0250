"""``S3StreamingDataset``: objects in an exact global shuffle, shared out to ranks and workers, resumed anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, cast

from torch.utils.data import IterableDataset

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._dataset_source import DatasetSource, PinnedObjects, identity
from s3torchconnector._datasets import _streaming
from s3torchconnector._datasets._contents import Contents, OfOnePart, Part
from s3torchconnector._datasets._counters import Counters
from s3torchconnector._datasets._epochs import Start
from s3torchconnector._datasets._mixed_contents import MixedContents
from s3torchconnector._datasets._pass import Making, Pass
from s3torchconnector._datasets._passes import Dealing, Passes
from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._ranks import Rank, environment_rank, group_rank
from s3torchconnector._samples._items import name_of
from s3torchconnector.s3cache import S3Cache
from s3torchconnector.s3manifest import S3Manifest
from s3torchconnector.s3reader import S3ReaderConstructorProtocol

__all__ = ["S3StreamingDataset"]


class S3StreamingDataset(IterableDataset[Any]):
    """The objects of a manifest for training: shuffled, each to one worker of one rank, resumable at any batch.

    The order of an epoch is a permutation of all objects that is computed from ``seed`` and the number of the epoch. It
    uses no memory, and does not depend on the numbers of ranks and workers. In each step, all ranks together get the
    next ``batch_size`` times ranks objects of it, so the objects that have been returned are always the first ones of
    the epoch. That is why the state is one number, equal on all ranks, and why a run can be resumed with other ranks,
    workers and batches, with each object seen once.

    While one sample is used, the next objects in the shuffled order are being fetched, across batches. Use it with
    ``S3DataLoader``. Each pass is a new epoch with another order; no call is needed.

    Args:
        manifest: the objects; or the URI of a prefix, which is then listed now, once per rank.
        region, endpoint: where they are; by default where the manifest was made.
        transform: makes a sample of an ``S3Reader``; or of a dict, if the manifest is of archives or of groups.
        s3client_config, reader_constructor: as for the other datasets.
        batch_size: samples of a batch of one rank.
        shuffle: if not, the order is the manifest's.
        seed: from 0 up to, but not including, 2**64. Equal on all ranks.
        drop_last: leave out the last samples of an epoch if they are fewer than a batch for every rank.
        even_batches: repeat some of the epoch's first samples, fewer than there are ranks, so that all ranks get the
            same number. If False, for evaluation, each sample comes once, and ranks differ by one sample at most.
        balance: ``"bytes"`` distributes the samples of each step among the ranks by size, so that all load about the
            same number of bytes. Each rank gets as many samples as without, and together they get the same ones.
        num_replicas, rank: who reads different samples; by default the ranks of the process group, else of
            ``torchrun``'s environment. Ranks that work on the same samples (tensor parallel) have the same ``rank``.
        on_error: ``"replace"`` replaces a sample whose transform raises, or whose content is wrong, by another one, the
            same on any number of ranks and workers, and logs it. Errors of S3 are raised. ``"raise"`` raises all; the
            next call continues with the next sample or batch.
        max_errors: how many samples may be replaced in an epoch of one rank, before the next error is raised.
        cache: where objects are kept on this node, see ``S3Cache``.
        canonical_nodes: how many nodes the samples are dealt to once and for all, so that a node sees the same ones in
            each epoch and its cache has them: a multiple of the nodes there are. ``batch_size`` times ranks must be a
            multiple of it, or some samples change nodes, and ranks must be numbered from node to node, as ``torchrun``
            does. Another number of nodes goes on exactly, too. By default, any node may get any sample.
        look_ahead: at most this number of objects is fetched before they are asked for; by default as many as
            ``throughput_target_gbps`` can use. 0 switches it off.
        transform_threads: how many threads of each process that iterates run transforms, which must allow that; 0 runs
            them in the thread that iterates. Samples have the same order, and errors come as without. At most a batch
            of samples, or twice as many as there are threads, are begun before they are asked for.

    Raises:
        S3ConfigurationError: an argument cannot be used.
        S3Exception: the prefix cannot be listed.

    Example:
        >>> from s3torchconnector import S3DataLoader, S3StreamingDataset
        >>> dataset = S3StreamingDataset(
        ...     "s3://my-bucket/images/", region="us-east-1", transform=lambda reader: len(reader.read()), batch_size=2
        ... )
        >>> loader = S3DataLoader(dataset)
        >>> [len(batch) for batch in loader], dataset.epoch, loader.state_dict()["position"]
        ([2, 1], 0, 3)

        Datasets are mixed by weight, exactly in each 1,000 samples; see ``mix``:

        >>> text = S3StreamingDataset("s3://my-bucket/images/", region="us-east-1", transform=lambda reader: "text")
        >>> mixed = S3StreamingDataset.mix({"sizes": (dataset, 3), "text": (text, 1)}, samples_per_epoch=1000)
        >>> list(mixed).count("text")
        250
    """

    def __init__(
        self,
        manifest: S3Manifest | str,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        transform: Callable[[Any], Any] = identity,
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        batch_size: int = 1,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        even_batches: bool = True,
        balance: Literal["bytes"] | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
        on_error: Literal["raise", "replace"] = "raise",
        max_errors: int = 100,
        cache: S3Cache | None = None,
        canonical_nodes: int | None = None,
        look_ahead: int | None = None,
        transform_threads: int = 0,
    ) -> None:
        _streaming.check_numbers(batch_size, seed, num_replicas, rank, look_ahead, transform_threads)
        most_errors = _streaming.most_errors(on_error, max_errors)
        dealing = _streaming.dealing(batch_size, drop_last, even_batches, balance, num_replicas, rank)
        dealing = _streaming.on_nodes(dealing, canonical_nodes)
        listed = _listed(manifest, region, endpoint, s3client_config, dealing.rank)
        region, endpoint, s3client_config = listed._place(region, endpoint, s3client_config)
        objects = PinnedObjects(listed, cache)
        source = DatasetSource(region, objects, endpoint, transform, s3client_config, reader_constructor, "streaming")
        part = Part(source, listed, seed, shuffle, most_errors, dealing.nodes)
        self._set_up(OfOnePart(part), dealing, look_ahead, transform_threads)

    @classmethod
    def mix(
        cls,
        sources: Mapping[str, tuple[S3StreamingDataset, float]],
        *,
        batch_size: int = 1,
        samples_per_epoch: int | None = None,
        seed: int = 0,
        drop_last: bool = False,
        even_batches: bool = True,
        balance: Literal["bytes"] | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
        look_ahead: int | None = None,
        transform_threads: int = 0,
    ) -> S3StreamingDataset:
        """Mix datasets by weight. Which sample comes when depends on the seeds and the position alone.

        Args:
            sources: by name: a dataset and its weight, such as ``{"web": (web, 0.7), "books": (books, 0.3)}``. Of a
                dataset, what it reads and how, transform, seed, shuffle, ``on_error`` and ``max_errors`` count.
            samples_per_epoch: of all ranks together; by default as many as the sources with a weight have.
            seed: decides how sources are interleaved and, with each one's own seed, their orders.
            batch_size, drop_last, even_batches, balance: see ``S3StreamingDataset``.
            num_replicas, rank, look_ahead, transform_threads: see ``S3StreamingDataset``.

        Raises:
            S3ConfigurationError: the sources cannot be mixed, or an argument cannot be used.
        """
        _streaming.check_numbers(batch_size, seed, num_replicas, rank, look_ahead, transform_threads)
        dealing = _streaming.dealing(batch_size, drop_last, even_batches, balance, num_replicas, rank)
        weighted = {name: (_part_of(name, dataset), weight) for name, (dataset, weight) in sources.items()}
        mixed = cls.__new__(cls)
        mixed._set_up(MixedContents(weighted, samples_per_epoch, seed), dealing, look_ahead, transform_threads)
        return mixed

    def _set_up(self, contents: Contents, dealing: Dealing, look_ahead: int | None, threads: int) -> None:
        self._making = Making(contents, look_ahead, threads, Counters(len(contents.parts)))
        self._passes = Passes(contents, dealing)

    @property
    def manifest(self) -> S3Manifest:
        """The objects.

        Raises:
            AttributeError: it is a mix, whose sources have manifests.
        """
        if isinstance(self._making.contents, MixedContents):
            raise AttributeError("a mix has no manifest of its own: ask the datasets that were mixed")
        return cast("S3Manifest", self._making.contents.parts[0].objects)

    @property
    def batch_size(self) -> int:
        """Samples of a batch of one rank."""
        return self._passes.batch_size

    @property
    def epoch(self) -> int:
        """The number of the latest pass, or of the first one before it begins."""
        return self._passes.epochs.latest().epoch

    def set_epoch(self, epoch: int) -> None:
        """Have the next pass be this epoch, from its beginning, also in workers that run already.

        It is not needed: each pass is the epoch after the one before. A loop that calls it before each pass resumes
        exactly, too: if the next pass is the rest of this epoch, by ``load_state_dict``, it stays so.

        Raises:
            S3ConfigurationError: no epoch has such a number; or Accelerate counts from 0 after a state was loaded.
        """
        self._passes.set_epoch(epoch)

    def __len__(self) -> int:
        """How many samples this rank gets in a whole epoch."""
        plan = self._passes.plan(Start(0))
        return plan.deal.samples_of(plan.rank)

    def __iter__(self) -> Pass:
        """Begin a pass, when the first sample is asked for. It goes on after an error of a transform."""
        by_loader, restored = self._passes.prepare()
        return Pass(self._making, partial(self._passes.begin, by_loader, restored), by_loader)

    def keys_of(self, step: int, epoch: int | None = None, *, rank: int | None = None) -> list[str]:
        """The keys of the samples of a step, of all ranks in turn. Makes no request.

        Args:
            step: counted from the beginning of the epoch, in batches of this size on this many ranks.
            epoch: which one, by default the latest.
            rank: whose keys; by default those of all ranks.

        Raises:
            IndexError: the epoch has no such step.
        """
        latest = self._passes.epochs.latest()
        plan = self._passes.plan(latest if epoch in (None, latest.epoch) else Start(epoch or 0))
        return [name_of(self._making.contents.object(number)) for number in plan.samples_of_step(step, rank)]

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """Where this job is: a few numbers, equal on all ranks at the same step. See also ``S3DataLoader.state_dict``.

        Args:
            batches: how many batches of the latest pass this rank has had. It must be given if a DataLoader with
                workers, other than ``S3DataLoader`` and ``StatefulDataLoader``, makes them.

        Raises:
            S3ConfigurationError: only the DataLoader knows, and ``batches`` does not tell.
        """
        return self._passes.state(batches)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the next pass continue where the state was saved. Makes no request.

        The numbers of ranks and workers and the batch size may be others than when it was saved. A state that was saved
        at the end of an epoch goes on with the next one.

        Args:
            state: of ``state_dict``, of any rank; of an ``S3DataLoader``, or of a whole ``StatefulDataLoader``.

        Raises:
            S3ConfigurationError: it is the state of another manifest, mix, seed or order, or none.
        """
        self._passes.load(state)


def _part_of(name: str, dataset: object) -> Part:
    if not isinstance(dataset, S3StreamingDataset):
        raise TypeError(f"a source of a mix is an S3StreamingDataset, not {type(dataset).__name__}: {name}")
    parts = dataset._making.contents.parts
    if len(parts) > 1 or parts[0].name:
        raise S3ConfigurationError(f"a mix cannot be mixed again: pass its own sources with their weights ({name})")
    if parts[0].nodes > 1:
        raise S3ConfigurationError(f"a mix deals samples to all nodes: leave canonical_nodes out of {name}")
    return parts[0]


def _listed(
    manifest: S3Manifest | str,
    region: str | None,
    endpoint: str | None,
    config: S3ClientConfig | None,
    rank: Rank | None,
) -> S3Manifest:
    if isinstance(manifest, S3Manifest):
        return manifest
    listed = S3Manifest.from_prefix(manifest, region=region or "", endpoint=endpoint, s3client_config=config)
    _streaming.warn_of_listing(len(listed), (rank or group_rank() or environment_rank()).size)
    return listed
