"""The plan of a read: pure, so that each decision is held without a server, a thread or a byte."""

from __future__ import annotations

from typing import Any

import pytest

from s3torchconnector._errors import S3ConnectionError
from s3torchconnector._transfer.engine._budget import BUFFER_SIZE, ByteBudget
from s3torchconnector._transfer.engine._ranges import Range
from s3torchconnector._transfer.reading._block import Block
from s3torchconnector._transfer.reading._block_index import BlockIndex
from s3torchconnector._transfer.reading._read_policy import ADAPTIVE, SEQUENTIAL, ReadPattern, ReadPolicy, range_based
from s3torchconnector._transfer.reading._request_planner import Gap, ReadPlan, RequestPlanner
from tests.reading.support import KIB, MIB

PART = 8 * MIB
SIZE = 100 * MIB + 5


class Reader:
    """A planner, and blocks that were never fetched."""

    def __init__(self, policy: ReadPolicy = ADAPTIVE, limit: int | None = None) -> None:
        self.pattern = ReadPattern(policy)
        self._budget = ByteBudget(64 * MIB)
        self.index = BlockIndex(self._budget)
        self.planner = RequestPlanner(
            self.pattern, part_size=PART, most_ahead=4 * PART, most_kept=self._budget.limit // 2, limit=limit
        )

    def block(self, start: int, stop: int, *, ready: bool = True) -> Block:
        block = Block(self._budget, Range(start, stop))
        block.ready = ready
        if ready:
            block.outcome.set()
        self.index.add(block)
        return block

    def plan(self, start: int, stop: int, size: int | None = SIZE) -> ReadPlan:
        self.pattern.note(start, stop)
        return self.planner.plan(self.index, Range(start, stop), size)


def test_complete_bytes_need_no_request() -> None:
    reader = Reader()
    reader.block(MIB, 2 * MIB)
    plan = reader.plan(MIB + 10, MIB + 20)
    assert (plan.gaps, plan.discard, plan.streams, plan.reads_ahead) == ([], [], False, False)


def test_bytes_in_flight_are_not_requested_again() -> None:
    reader = Reader()
    reader.block(MIB, 2 * MIB, ready=False)
    assert reader.plan(MIB, 2 * MIB).gaps == []


def test_a_small_read_becomes_a_block_with_bytes_around_it() -> None:
    assert Reader().plan(MIB, MIB + 10).gaps == [Gap(Range(MIB, MIB + 10), Range(MIB, MIB + 256 * KIB))]


def test_a_block_ends_where_the_next_one_begins() -> None:
    reader = Reader()
    reader.block(MIB + 100, 2 * MIB)
    assert reader.plan(MIB, MIB + 10).gaps == [Gap(Range(MIB, MIB + 10), Range(MIB, MIB + 100))]


def test_a_first_read_at_the_end_gets_the_bytes_in_front_of_it() -> None:
    assert Reader().plan(SIZE - 10, SIZE).gaps == [Gap(Range(SIZE - 10, SIZE), Range(SIZE - 256 * KIB, SIZE))]


def test_a_large_read_goes_directly_and_is_cut_on_the_grid() -> None:
    gaps = Reader().plan(MIB, 2 * PART + MIB).gaps
    assert [gap.wanted for gap in gaps] == [Range(MIB, PART), Range(PART, 2 * PART), Range(2 * PART, 2 * PART + MIB)]
    assert [gap.block for gap in gaps] == [None] * 3


def test_only_the_gaps_between_blocks_are_requested() -> None:
    reader = Reader(range_based(0))
    reader.block(MIB, 2 * MIB)
    reader.block(3 * MIB, 4 * MIB)
    assert [gap.wanted for gap in reader.plan(0, 5 * MIB).gaps] == [
        Range(0, MIB),
        Range(2 * MIB, 3 * MIB),
        Range(4 * MIB, 5 * MIB),
    ]


def test_a_range_based_read_asks_for_no_more_than_its_buffer() -> None:
    assert Reader(range_based(0)).plan(MIB, MIB + 10).gaps == [Gap(Range(MIB, MIB + 10), None)]
    assert Reader(range_based(100)).plan(MIB, MIB + 10).gaps == [Gap(Range(MIB, MIB + 10), Range(MIB, MIB + 100))]


def test_reads_in_order_stream_from_their_own_beginning() -> None:
    reader = Reader()
    first = reader.plan(0, MIB)
    assert (first.streams, first.reads_ahead) == (False, False)
    second = reader.plan(MIB, 2 * MIB)
    assert (second.streams, second.reads_ahead) == (True, True)
    reader.block(2 * MIB, 3 * MIB)
    third = reader.plan(2 * MIB, 3 * MIB)
    assert (third.streams, third.reads_ahead) == (False, True)


@pytest.mark.parametrize(("policy", "ahead"), [(SEQUENTIAL, True), (ADAPTIVE, False), (range_based(0), False)])
def test_a_first_read_reads_ahead_only_if_its_policy_is_eager(policy: ReadPolicy, ahead: bool) -> None:
    assert Reader(policy).plan(0, MIB).reads_ahead is ahead


def test_read_ahead_is_cut_on_the_grid_and_leaves_out_blocks() -> None:
    reader = Reader(SEQUENTIAL)
    reader.plan(0, MIB)
    reader.block(PART, PART + MIB)
    assert list(reader.planner.ahead(reader.index, MIB, SIZE)) == [
        Range(MIB, PART),
        Range(PART + MIB, 2 * PART),
        Range(2 * PART, 3 * PART),
        Range(3 * PART, 4 * PART),
        Range(4 * PART, 5 * PART),
    ]


def test_nothing_is_read_ahead_after_the_limit() -> None:
    reader = Reader(SEQUENTIAL, limit=PART + 7)
    reader.plan(0, MIB)
    assert list(reader.planner.ahead(reader.index, MIB, SIZE)) == [Range(MIB, PART), Range(PART, PART + 7)]


def test_a_large_block_is_discarded_after_it_was_read_in_order() -> None:
    reader = Reader(SEQUENTIAL)
    large = reader.block(0, BUFFER_SIZE)
    small = reader.block(BUFFER_SIZE, BUFFER_SIZE + MIB)
    plan = reader.plan(BUFFER_SIZE + MIB, BUFFER_SIZE + 2 * MIB)
    assert plan.discard == [large]
    assert small in list(reader.index)
    assert large in list(reader.index)  # a plan changes nothing


def test_an_object_that_is_read_whole_keeps_its_blocks() -> None:
    reader = Reader(SEQUENTIAL)
    reader.pattern.expects_all = True
    reader.block(0, BUFFER_SIZE)
    plan = reader.plan(BUFFER_SIZE, 2 * BUFFER_SIZE)
    assert (plan.discard, plan.expected) == ([], None)


def test_the_oldest_of_random_reads_is_discarded() -> None:
    reader = Reader()
    blocks = [reader.block(start, start + MIB) for start in range(0, 80 * MIB, 2 * MIB)]
    assert reader.plan(90 * MIB, 90 * MIB + 10).discard == blocks[:24]  # a quarter of the budget is left


def test_a_failed_block_that_can_be_retried_is_requested_again() -> None:
    reader = Reader(range_based(0))
    failed = reader.block(0, MIB, ready=False)
    failed.outcome.set(S3ConnectionError("broken"))
    plan = reader.plan(0, MIB)
    assert plan.discard == [failed]
    assert plan.gaps == [Gap(Range(0, MIB), None)]


def test_a_failed_block_that_cannot_be_retried_raises_its_error() -> None:
    reader = Reader(range_based(0))
    failed = reader.block(0, MIB, ready=False)
    failed.outcome.set(ZeroDivisionError())
    plan = reader.plan(0, MIB)
    assert (plan.discard, plan.gaps) == ([], [])


def test_a_plan_says_which_bytes_are_expected_next() -> None:
    reader: Any = Reader(SEQUENTIAL)
    assert reader.plan(0, MIB).expected == (0, MIB + 4 * PART + 2 * PART)
    assert Reader(range_based(0)).plan(5, 10).expected == (5, 11)
