"""Where a rank's files go below a checkpoint: prefixes that spread the ranks over S3's partitions.

S3 splits its key space at common prefixes. Keys that differ in their first characters are served by different
partitions sooner than keys that differ in their last, hence numbers are written with their digits reversed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch.distributed as dist

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class S3PrefixStrategyBase(ABC):
    """Names the files of a rank: called with the rank, returns what their names begin with."""

    def __call__(self, rank: int) -> str:
        """The prefix of the rank's files, relative to the checkpoint: ``generate_prefix(rank)``."""
        return self.generate_prefix(rank)

    @abstractmethod
    def generate_prefix(self, rank: int) -> str:
        """What the names of the rank's files begin with; no two ranks may have the same."""


class DefaultPrefixStrategy(S3PrefixStrategyBase):
    """PyTorch's names: ``__RANK_``."""

    def generate_prefix(self, rank: int) -> str:
        """``__RANK_``."""
        return f"__{rank}_"


class _EpochPrefixStrategy(S3PrefixStrategyBase):
    """A first part that spreads, and behind it the epoch, if there is one, and the rank."""

    def __init__(self, epoch_num: int | None = None) -> None:
        if epoch_num is not None and not isinstance(epoch_num, int):
            raise ValueError(f"Epoch number must be None or an integer, got {epoch_num!r}")
        self.epoch_num = epoch_num

    def generate_prefix(self, rank: int) -> str:
        """``SPREAD/epoch_N/__RANK_``."""
        epoch = "" if self.epoch_num is None else f"epoch_{self.epoch_num}/"
        return f"{self._spread(rank)}/{epoch}__{rank}_"

    @abstractmethod
    def _spread(self, rank: int) -> str:
        """The first part."""


class RoundRobinPrefixStrategy(_EpochPrefixStrategy):
    """Deals the ranks out to the program's own prefixes: ``PREFIX/epoch_N/__RANK_``.

    Args:
        user_prefixes: rank ``r`` gets number ``r % len(user_prefixes)``.
        epoch_num: the epoch; left out of the name if not given.

    Raises:
        ValueError: there are no prefixes, or the epoch is not an integer.
    """

    def __init__(self, user_prefixes: Sequence[str], epoch_num: int | None = None) -> None:
        super().__init__(epoch_num)
        if not user_prefixes:
            raise ValueError("user_prefixes must not be empty")
        self.user_prefixes = list(user_prefixes)

    def _spread(self, rank: int) -> str:
        return self.user_prefixes[rank % len(self.user_prefixes)]


class NumericPrefixStrategy(_EpochPrefixStrategy):
    """The rank as a number with its digits reversed: ``REVERSED/epoch_N/__RANK_``.

    Args:
        base: 2 to 36.
        epoch_num: the epoch; left out of the name if not given.
        min_prefix_length: digits that a number is padded to with zeros, before it is reversed.
        prefix_count: how many different numbers there are; rank ``r`` gets ``r % prefix_count``. By default the world
            size (1 without a process group) when the strategy is made.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> NumericPrefixStrategy(epoch_num=3, min_prefix_length=4, prefix_count=16)(12)
        '2100/epoch_3/__12_'
    """

    def __init__(
        self,
        base: int = 10,
        epoch_num: int | None = None,
        min_prefix_length: int = 10,
        prefix_count: int | None = None,
    ) -> None:
        super().__init__(epoch_num)
        if not isinstance(base, int) or not 2 <= base <= len(_DIGITS):
            raise ValueError(f"Base must be an integer from 2 to {len(_DIGITS)}, got {base!r}")
        if not isinstance(min_prefix_length, int) or min_prefix_length < 1:
            raise ValueError(f"Minimum prefix length must be positive, got {min_prefix_length!r}")
        if prefix_count is not None and (not isinstance(prefix_count, int) or prefix_count < 1):
            raise ValueError(f"Prefix count must be a positive integer, got {prefix_count!r}")
        self.base = base
        self.prefix_count = _world_size() if prefix_count is None else prefix_count
        self.prefix_length = len(self._format_number(self.prefix_count - 1, min_prefix_length))

    def _spread(self, rank: int) -> str:
        return self._format_number(rank % self.prefix_count, self.prefix_length)[::-1]

    def _format_number(self, number: int, length: int) -> str:
        """The number with at least ``length`` digits, not yet reversed; a subclass may write it otherwise."""
        digits = ""
        while number or not digits:
            number, digit = divmod(number, self.base)
            digits = _DIGITS[digit] + digits
        return digits.zfill(length)


class BinaryPrefixStrategy(NumericPrefixStrategy):
    """``NumericPrefixStrategy`` in base 2: rank 1 becomes ``1000000000/__1_``."""

    def __init__(
        self, epoch_num: int | None = None, min_prefix_length: int = 10, prefix_count: int | None = None
    ) -> None:
        super().__init__(2, epoch_num, min_prefix_length, prefix_count)


class HexPrefixStrategy(NumericPrefixStrategy):
    """``NumericPrefixStrategy`` in base 16: rank 26 becomes ``a100000000/__26_``."""

    def __init__(
        self, epoch_num: int | None = None, min_prefix_length: int = 10, prefix_count: int | None = None
    ) -> None:
        super().__init__(16, epoch_num, min_prefix_length, prefix_count)


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
