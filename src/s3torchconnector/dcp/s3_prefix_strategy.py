"""Prefixes for the files of a checkpoint, which spread the ranks over S3's partitions.

S3 divides its key space by common prefixes. Keys that differ in their first characters come to different partitions
sooner than keys that differ in their last. So numbers are written with their digits reversed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch.distributed as dist

__all__ = [
    "BinaryPrefixStrategy",
    "DefaultPrefixStrategy",
    "HexPrefixStrategy",
    "NumericPrefixStrategy",
    "RoundRobinPrefixStrategy",
    "S3PrefixStrategyBase",
]

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class S3PrefixStrategyBase(ABC):
    """Says what the names of a rank's files begin with. Derive from it to make a strategy of your own.

    Example:
        >>> from s3torchconnector.dcp import S3PrefixStrategyBase, S3StorageWriter
        >>> class ByNode(S3PrefixStrategyBase):
        ...     def generate_prefix(self, rank):
        ...         return f"node-{rank // 8}/__{rank}_"
        >>> writer = S3StorageWriter("us-east-1", "s3://my-bucket/step-100", prefix_strategy=ByNode())
        >>> writer.prefix_strategy(17)
        'node-2/__17_'
    """

    def __call__(self, rank: int) -> str:
        """Return ``generate_prefix(rank)``."""
        return self.generate_prefix(rank)

    @abstractmethod
    def generate_prefix(self, rank: int) -> str:
        """Return what the names of the rank's files begin with, relative to the checkpoint.

        No two ranks may have the same prefix.
        """


class DefaultPrefixStrategy(S3PrefixStrategyBase):
    """PyTorch's prefixes: ``__RANK_``.

    Example:
        >>> from s3torchconnector.dcp import DefaultPrefixStrategy
        >>> DefaultPrefixStrategy()(17)
        '__17_'
    """

    def generate_prefix(self, rank: int) -> str:
        """Return ``__RANK_``."""
        return f"__{rank}_"


class _EpochPrefixStrategy(S3PrefixStrategyBase):
    """A first component that spreads the ranks, then the epoch, if there is one, and the rank."""

    def __init__(self, epoch_num: int | None = None) -> None:
        if epoch_num is not None and not isinstance(epoch_num, int):
            raise ValueError(f"Epoch number must be None or an integer, got {epoch_num!r}")
        self.epoch_num = epoch_num

    def generate_prefix(self, rank: int) -> str:
        """Return ``SPREAD/epoch_N/__RANK_``, without ``epoch_N/`` if no epoch was given."""
        epoch = "" if self.epoch_num is None else f"epoch_{self.epoch_num}/"
        return f"{self._spread(rank)}/{epoch}__{rank}_"

    @abstractmethod
    def _spread(self, rank: int) -> str:
        """The first component."""


class RoundRobinPrefixStrategy(_EpochPrefixStrategy):
    """Distributes the ranks over prefixes of the program's own: ``PREFIX/epoch_N/__RANK_``.

    Args:
        user_prefixes: rank ``r`` gets prefix number ``r % len(user_prefixes)``.
        epoch_num: the epoch. If None, the prefix has no ``epoch_N/``.

    Raises:
        ValueError: there are no prefixes, or the epoch is not an integer.

    Example:
        >>> from s3torchconnector.dcp import RoundRobinPrefixStrategy
        >>> RoundRobinPrefixStrategy(["a", "b"], epoch_num=3)(17)
        'b/epoch_3/__17_'
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
        base: of the number, 2 to 36.
        epoch_num: the epoch. If None, the prefix has no ``epoch_N/``.
        min_prefix_length: the number is padded with zeros to this number of digits before it is reversed.
        prefix_count: how many different numbers there are: rank ``r`` gets ``r % prefix_count``. By default the world
            size at the time when the strategy is made, or 1 without a process group.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> from s3torchconnector.dcp import NumericPrefixStrategy
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
        self.min_prefix_len = min_prefix_length
        length = len(self._format_number(self.prefix_count - 1, min_prefix_length))
        self.prefix_map = [self._format_number(number, length)[::-1] for number in range(self.prefix_count)]

    def _spread(self, rank: int) -> str:
        return self.prefix_map[rank % len(self.prefix_map)]

    def _format_number(self, number: int, length: int) -> str:
        """The number with at least ``length`` digits, not yet reversed. A subclass may override it."""
        digits = ""
        while number or not digits:
            number, digit = divmod(number, self.base)
            digits = _DIGITS[digit] + digits
        return digits.zfill(length)


class BinaryPrefixStrategy(NumericPrefixStrategy):
    """``NumericPrefixStrategy`` in base 2.

    Example:
        >>> from s3torchconnector.dcp import BinaryPrefixStrategy
        >>> BinaryPrefixStrategy(prefix_count=16)(6)
        '0110000000/__6_'
    """

    def __init__(
        self, epoch_num: int | None = None, min_prefix_length: int = 10, prefix_count: int | None = None
    ) -> None:
        super().__init__(2, epoch_num, min_prefix_length, prefix_count)


class HexPrefixStrategy(NumericPrefixStrategy):
    """``NumericPrefixStrategy`` in base 16.

    Example:
        >>> from s3torchconnector.dcp import HexPrefixStrategy
        >>> HexPrefixStrategy(prefix_count=64)(26)
        'a100000000/__26_'
    """

    def __init__(
        self, epoch_num: int | None = None, min_prefix_length: int = 10, prefix_count: int | None = None
    ) -> None:
        super().__init__(16, epoch_num, min_prefix_length, prefix_count)


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
