"""The order of an epoch: a bijection from positions to samples, computed and never stored. Pure.

A format-preserving permutation (a generalised Feistel network, Black and Rogaway 2002) on the smallest rectangle of
``a`` columns and ``b`` rows that holds all samples. Positions that it sends outside are sent again ("cycle walking"):
fewer than one in the square root of the number of samples. So an epoch's order takes no memory for any number of
samples, and any position can be computed directly. Few samples are sorted by a hash instead: a network on a small
rectangle has too few permutations.

The keys are a hash of (seed, epoch, samples), so that no two orders are related. (With ``seed + epoch``, two runs
would share their epochs.)
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from math import isqrt
from typing import Protocol

import torch

NAME = "feistel-1"
"""What a saved state calls this order. Another result for any (seed, epoch, samples, position) needs another name."""

_ROUNDS = 6
_FEW = 16_384  # samples that are sorted by a hash: so few that PyTorch uses one thread, also in forked children
_MASK = 2**64 - 1
_POSITIVE = 2**62 - 1  # what is kept of a hash before the remainder is taken: sums stay positive in an int64
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


class AnyOrder(Protocol):
    """Which sample is at which position of an epoch."""

    seed: int
    epoch: int
    samples: int

    def sample_at(self, position: int) -> int: ...

    def samples_at(self, positions: torch.Tensor) -> torch.Tensor: ...


class Order:
    """A permutation of the samples.

    Args:
        seed: from 0 up to, but not including, 2**64.
        epoch: likewise.
        samples: how many there are.
        shuffle: if not, the order is that of the samples.
    """

    def __init__(self, seed: int, epoch: int, samples: int, *, shuffle: bool = True) -> None:
        self.seed, self.epoch, self.samples = seed, epoch, samples
        self._shuffle = shuffle
        self._columns = isqrt(max(0, samples - 1)) + 1
        self._rows = -(-samples // self._columns) if samples else 1
        data = struct.pack("<QQQ", seed, epoch, samples)
        self._hashed: torch.Tensor | None = None
        self._keys = struct.unpack("<6Q", blake2b(data, key=b"s3torchconnector order", digest_size=48).digest())

    def sample_at(self, position: int) -> int:
        """The sample at a position.

        Raises:
            IndexError: there is no such position.
        """
        self._check(position)
        if not self._shuffle:
            return position
        if self.samples <= _FEW:
            return int(self._sorted[position])
        while True:
            position = self._encrypt(position)
            if position < self.samples:
                return position

    def position_of(self, sample: int) -> int:
        """The position of a sample: the inverse of ``sample_at``.

        Raises:
            IndexError: there is no such sample.
        """
        self._check(sample)
        if not self._shuffle:
            return sample
        if self.samples <= _FEW:
            return int((self._sorted == sample).nonzero())
        while True:
            sample = self._decrypt(sample)
            if sample < self.samples:
                return sample

    def samples_at(self, positions: torch.Tensor) -> torch.Tensor:
        """The samples at many positions (int64, each of them one of the epoch's), in a new tensor."""
        if not self._shuffle:
            return positions.clone()
        if self.samples <= _FEW:
            return self._sorted[positions]
        result = self._encrypt_all(positions)
        while (outside := (result >= self.samples).nonzero().flatten()).numel():
            result[outside] = self._encrypt_all(result[outside])
        return result

    @property
    def _sorted(self) -> torch.Tensor:
        """The samples in the order of their hashes. (Not by ``cached_property``, whose lock a fork may cut in two.)"""
        if self._hashed is None:
            self._hashed = sorted_by_hash(self.samples, self._keys[0], self._keys[1])
        return self._hashed

    def _check(self, number: int) -> None:
        if not 0 <= number < self.samples:
            raise IndexError(f"{number} is out of range for an epoch of {self.samples} samples")

    def _encrypt(self, number: int) -> int:
        right, left = divmod(number, self._columns)
        for i, key in enumerate(self._keys):
            modulus = self._rows if i % 2 else self._columns
            left, right = right, (left + (mix(right ^ key) & _POSITIVE)) % modulus
        return left + self._columns * right

    def _decrypt(self, number: int) -> int:
        right, left = divmod(number, self._columns)
        for i in reversed(range(_ROUNDS)):
            modulus = self._rows if i % 2 else self._columns
            left, right = (right - (mix(left ^ self._keys[i]) & _POSITIVE)) % modulus, left
        return left + self._columns * right

    def _encrypt_all(self, numbers: torch.Tensor) -> torch.Tensor:
        left, right = numbers % self._columns, numbers // self._columns
        for i, key in enumerate(self._keys):
            modulus = self._rows if i % 2 else self._columns
            left, right = right, (left + (_mix_all(right ^ _signed(key)) & _POSITIVE)) % modulus
        return left + self._columns * right


def sorted_by_hash(count: int, one: int, other: int) -> torch.Tensor:
    """The numbers below ``count``, which is small, in an order that two keys of 64 bits decide."""
    return torch.argsort(_mix_all(torch.arange(count) ^ _signed(one)) ^ _signed(other), stable=True)


def mix(number: int) -> int:
    """Mix 64 bits (the finaliser of SplitMix64, Steele, Lea and Flood 2014)."""
    number ^= number >> 30
    number = number * _MULTIPLIERS[0] & _MASK
    number ^= number >> 27
    number = number * _MULTIPLIERS[1] & _MASK
    return number ^ number >> 31


def _mix_all(numbers: torch.Tensor) -> torch.Tensor:
    """``mix`` of signed numbers with the same bits. Products of int64 tensors wrap; their shifts keep the sign."""
    numbers = numbers ^ (numbers >> 30 & 2**34 - 1)
    numbers = numbers * _signed(_MULTIPLIERS[0])
    numbers = numbers ^ (numbers >> 27 & 2**37 - 1)
    numbers = numbers * _signed(_MULTIPLIERS[1])
    return numbers ^ (numbers >> 31 & 2**33 - 1)


def _signed(number: int) -> int:
    return number - 2**64 if number >> 63 else number
