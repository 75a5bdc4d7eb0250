"""Prefixes of ranks: those of 1.5.0, which were recorded from it."""

from __future__ import annotations

import pickle

import pytest

from s3torchconnector import dcp
from s3torchconnector.dcp import (
    BinaryPrefixStrategy,
    DefaultPrefixStrategy,
    HexPrefixStrategy,
    NumericPrefixStrategy,
    RoundRobinPrefixStrategy,
    S3PrefixStrategyBase,
    s3_file_system,
)


@pytest.mark.parametrize(
    ("strategy", "rank", "prefix"),
    [
        (DefaultPrefixStrategy(), 3, "__3_"),
        (BinaryPrefixStrategy(), 5, "0000000000/__5_"),  # one rank, as long as there is no group
        (BinaryPrefixStrategy(prefix_count=4), 3, "1100000000/__3_"),
        (BinaryPrefixStrategy(prefix_count=4), 5, "1000000000/__5_"),
        (BinaryPrefixStrategy(0, 3, 2), 1, "100/epoch_0/__1_"),
        (BinaryPrefixStrategy(min_prefix_length=1, prefix_count=16), 1, "1000/__1_"),
        (BinaryPrefixStrategy(min_prefix_length=1, prefix_count=17), 1, "10000/__1_"),
        (BinaryPrefixStrategy(min_prefix_length=2, prefix_count=100), 63, "1111110/__63_"),
        (HexPrefixStrategy(min_prefix_length=1, prefix_count=20), 17, "11/__17_"),
        (HexPrefixStrategy(min_prefix_length=2, prefix_count=100), 63, "f3/__63_"),
        (HexPrefixStrategy(3, prefix_count=64), 26, "a100000000/epoch_3/__26_"),
        (NumericPrefixStrategy(epoch_num=3, min_prefix_length=4, prefix_count=16), 12, "2100/epoch_3/__12_"),
        (RoundRobinPrefixStrategy(["a", "b"]), 2, "a/__2_"),
        (RoundRobinPrefixStrategy(["a", "b"], 5), 1, "b/epoch_5/__1_"),
    ],
)
def test_prefix(strategy: S3PrefixStrategyBase, rank: int, prefix: str) -> None:
    assert strategy(rank) == prefix
    assert pickle.loads(pickle.dumps(strategy)).generate_prefix(rank) == prefix


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix_count": 0}, "Prefix count must be a positive integer, got 0"),
        ({"prefix_count": "3"}, "Prefix count must be a positive integer, got '3'"),
        ({"min_prefix_length": 0}, "Minimum prefix length must be positive, got 0"),
        ({"epoch_num": 1.5}, "Epoch number must be None or an integer, got 1.5"),
    ],
)
def test_what_cannot_be_a_number(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HexPrefixStrategy(**options)  # type: ignore[arg-type]


def test_round_robin_needs_prefixes() -> None:
    with pytest.raises(ValueError, match="user_prefixes must not be empty"):
        RoundRobinPrefixStrategy([])


def test_own_strategies_derive_from_the_base() -> None:
    class Own(S3PrefixStrategyBase):
        def generate_prefix(self, rank: int) -> str:
            return f"own/{rank}"

    assert Own()(7) == "own/7"
    with pytest.raises(TypeError, match="abstract"):
        S3PrefixStrategyBase()  # type: ignore[abstract]


def test_own_numbers_as_for_1_5_0() -> None:
    class Base32(NumericPrefixStrategy):
        def __init__(self, prefix_count: int) -> None:
            super().__init__(base=32, prefix_count=prefix_count)

        def _format_number(self, number: int, length: int) -> str:
            digits = ""
            while number:
                number, digit = divmod(number, 32)
                digits = "0123456789ABCDEFGHIJKLMNOPQRSTUV"[digit] + digits
            return digits.zfill(length)

    strategy = Base32(prefix_count=64)
    assert [strategy(rank) for rank in (0, 15, 40)] == ["0000000000/__0_", "F000000000/__15_", "8100000000/__40_"]


def test_reader_and_writer_have_the_import_path_of_1_5_0() -> None:
    assert s3_file_system.S3StorageReader is dcp.S3StorageReader
    assert s3_file_system.S3StorageWriter is dcp.S3StorageWriter
    with pytest.raises(AttributeError, match="has no attribute 'S3StorageRider'"):
        s3_file_system.S3StorageRider  # noqa: B018


def test_all_names_are_exported() -> None:
    assert dcp.__all__ == sorted(dcp.__all__)
    assert len(dcp.__all__) == 9
