"""The samples of a mix: those of several datasets, each made as its dataset makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from s3torchconnector._datasets import _mixture
from s3torchconnector._datasets._contents import Contents, Part
from s3torchconnector._datasets._mixture import MixedOrder, Source, quotas, seed_of_source
from s3torchconnector._datasets._state import Settings
from s3torchconnector._errors import S3ConfigurationError

_DIGITS = 16  # of each fingerprint: there may be many


class MixedContents(Contents):
    """Samples of several parts, by weight.

    Args:
        weighted: parts and their weights, by name.
        samples: positions of an epoch; by default as many as the parts with weights have together.
        seed: decides how they are interleaved, and their own orders together with their own seeds.

    Raises:
        S3ConfigurationError: they cannot be mixed.
    """

    def __init__(self, weighted: Mapping[str, tuple[Part, float]], samples: int | None, seed: int) -> None:
        parts = {name: part for name, (part, _) in weighted.items()}
        weights = {name: weight for name, (_, weight) in weighted.items()}
        try:
            shares = quotas(list(weights.values()))
        except ValueError as error:
            raise S3ConfigurationError(f"{error}: {weights}") from error
        empty = [name for name, share in zip(parts, shares, strict=True) if share and not len(parts[name].objects)]
        if empty:
            raise S3ConfigurationError(f"a source without samples cannot have a weight: {', '.join(empty)}")
        if samples is None:
            samples = sum(len(part.objects) for part, share in zip(parts.values(), shares, strict=True) if share)
        if type(samples) is not int or not 0 < samples <= _mixture.MOST_SAMPLES:
            raise S3ConfigurationError(
                f"samples_per_epoch must be a whole number from 1 to {_mixture.MOST_SAMPLES}: {samples!r}"
            )
        self._seed = seed
        self._sources = [
            Source(len(part.objects), share, seed_of_source(seed, part.seed, name), part.shuffle)
            for (name, part), share in zip(parts.items(), shares, strict=True)
        ]
        named = [replace(part, name=name) for name, part in parts.items()]
        super().__init__(named, samples, _settings(named, shares, samples, seed))

    def order(self, epoch: int) -> MixedOrder:
        return MixedOrder(self._sources, self._seed, epoch, self.samples)


def _settings(parts: list[Part], shares: list[int], samples: int, seed: int) -> Settings:
    manifests = ", ".join(f"{part.name}={part.fingerprint[:_DIGITS]}" for part in parts)
    sources = ", ".join(
        f"{part.name}={share}/{_mixture.BLOCK} seed {part.seed}{'' if part.shuffle else ' in order'}"
        for part, share in zip(parts, shares, strict=True)
    )
    return Settings(manifests, samples, seed, True, _mixture.NAME, sources)
