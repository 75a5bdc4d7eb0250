"""What a saved state of a streaming dataset says: where its training is, the same on all ranks.

Only numbers, strings and booleans, so that JSON, ``torch.save`` with ``weights_only=True`` and distributed checkpoints
take it. The position counts samples from the beginning of the epoch, of all ranks together: nothing in it depends on
how many ranks or workers there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from s3torchconnector._datasets import _order
from s3torchconnector._errors import S3ConfigurationError

VERSION = 1


@dataclass(frozen=True)
class Settings:
    """What a state must agree with: they decide which sample is at which position.

    Attributes:
        manifest: the first 32 digits of the manifest's fingerprint.
        samples: how many it has.
        seed, shuffle, order: see ``Order`` and ``NodeOrder``.
        sources: of a mix: names, weights, seeds.
    """

    manifest: str
    samples: int
    seed: int
    shuffle: bool
    order: str = _order.NAME
    sources: str = ""

    def named(self) -> dict[str, Any]:
        """What a state says of them, by name. Only a mix has sources."""
        return {name: value for name, value in asdict(self).items() if name != "sources" or value}


_ADVICE = {
    "manifest": "Load the manifest that was saved with the job (S3Manifest.save), or begin anew without this state",
    "samples": "Load the manifest that was saved with the job (S3Manifest.save), or begin anew without this state",
    "seed": "Give the dataset the seed of the state",
    "shuffle": "Give the dataset the shuffle of the state",
    "sources": "Mix the sources of the state, with its weights and seeds",
    "order": "Give the dataset the canonical_nodes of the state, go on with the release that saved it, or begin the "
    "epoch anew",
}


_OF_ALL = [field.name for field in fields(Settings) if field.name != "sources"]


def state_of(settings: Settings, epoch: int, position: int, batch_size: int, num_replicas: int) -> dict[str, Any]:
    """The state of a job that has handed out the samples before ``position`` of an epoch."""
    return {
        "version": VERSION,
        "epoch": epoch,
        "position": position,
        **settings.named(),
        "batch_size": batch_size,
        "num_replicas": num_replicas,
    }


def resume_at(state: Mapping[str, Any], settings: Settings) -> tuple[int, int]:
    """The epoch and the position at which a job goes on. An epoch that has ended is followed by the next.

    Raises:
        S3ConfigurationError: it is no state, or one of another dataset: the text names both values.
    """
    try:
        version, epoch, position = (_integer(state, name) for name in ("version", "epoch", "position"))
        found = {name: state[name] for name in _OF_ALL} | {"sources": state.get("sources", "")}
    except (KeyError, TypeError) as error:
        raise S3ConfigurationError(f"this is not a state of an S3StreamingDataset ({error}): {state!r:.300}") from error
    if version != VERSION:
        raise S3ConfigurationError(
            f"the state has version {version}, but this release reads version {VERSION}: resume with the release that "
            "saved it"
        )
    for name, value in asdict(settings).items():
        if found[name] != value:
            raise S3ConfigurationError(
                f"the state was saved with {name}={found[name]!r}, but this dataset has {name}={value!r}: "
                f"continuing would repeat some samples and leave out others. {_ADVICE[name]}"
            )
    if epoch < 0 or not 0 <= position <= settings.samples:
        raise S3ConfigurationError(
            f"the state says position {position} of epoch {epoch}, but there are only {settings.samples} samples"
        )
    return (epoch, position) if position < settings.samples else (epoch + 1, 0)


def _integer(state: Mapping[str, Any], name: str) -> int:
    value = state[name]
    if type(value) is not int:
        raise TypeError(f"{name} is {value!r}")
    return value
