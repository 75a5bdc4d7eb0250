"""The faults without a proxy: decisions depend on the seed alone, and plans have the intended effect."""

from __future__ import annotations

import collections
import random
import zlib
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.servers.faults import EVERY_RESPONSE, End, Fault, Mix, error_response, plan, with_checksum
from tests.servers.http_messages import Head, ReceivedRequest, parse_head

BODY = random.Random(1).randbytes(1000)
RANGED = b"HTTP/1.1 206 Partial Content\r\ncontent-length: 1000\r\ncontent-range: bytes 500-1499/9000\r\n\r\n"
GET = ReceivedRequest(Head("GET /b/k HTTP/1.1", {}, b""), b"")
LIST = ReceivedRequest(Head("GET /b?list-type=2 HTTP/1.1", {}, b""), b"")
ALL_FAULTS = (*EVERY_RESPONSE, Fault.FLIP)


def sent(steps: list[object]) -> bytes:
    return b"".join(step for step in steps if isinstance(step, bytes))


def test_decisions_depend_on_the_seed_and_the_place_alone() -> None:
    places = [(connection, number) for connection in range(30) for number in range(30)]
    decisions = [[Mix(seed).fault_for(GET, *place)[0] for place in places] for seed in (1, 1, 2)]
    assert decisions[0] == decisions[1] != decisions[2]


def test_a_fifth_of_responses_suffers_with_every_fault() -> None:
    mix = Mix(3, fraction=0.2)
    drawn = collections.Counter(mix.fault_for(GET, 0, number)[0] for number in range(20_000))
    assert 0.18 < 1 - drawn[None] / 20_000 < 0.22
    assert set(drawn) == {None, *EVERY_RESPONSE}
    assert min(drawn.values()) > 0.7 * 4000 / len(EVERY_RESPONSE)
    assert not {mix.fault_for(LIST, 0, number)[0] for number in range(20_000)} & {Fault.WRONG_RANGE, Fault.FLIP}


@given(st.sampled_from(ALL_FAULTS), st.randoms(use_true_random=False))
def test_a_plan_spoils_the_response_or_is_harmless(fault: Fault, dice: random.Random) -> None:
    steps = plan(fault, Mix(1), parse_head(RANGED), BODY, dice)
    whole = RANGED + BODY
    if fault in (Fault.TRICKLE, Fault.STALE):
        assert sent(steps) == whole
    elif fault is Fault.WRONG_RANGE:
        assert len(sent(steps)) >= len(whole) - 2
        assert sent(steps).endswith(BODY)
        assert b"500-1499/9000" not in sent(steps)
    elif fault is Fault.FLIP:
        assert sent(steps) == whole  # a part, which has no checksum
    else:
        assert whole.startswith(sent(steps))
        assert len(sent(steps)) < len(whole)
        assert End.CLOSE in steps or End.RESET in steps


def test_without_a_fault_the_response_is_unchanged() -> None:
    assert sent(plan(None, Mix(1), parse_head(RANGED), BODY, random.Random(1))) == RANGED + BODY


@pytest.mark.parametrize(("fault", "status"), [(Fault.SLOW_DOWN, 503), (Fault.INTERNAL_ERROR, 500), (Fault.CUT, None)])
def test_errors_are_sent_without_asking_the_server(fault: Fault, status: int | None) -> None:
    answer = error_response(fault)
    assert status == (answer and parse_head(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n").status)


@pytest.mark.parametrize("extra", [b"", b"content-range: bytes 0-999/1000\r\n"], ids=["whole", "range of all"])
def test_whole_objects_get_a_checksum_of_their_true_bytes(extra: bytes) -> None:
    head = parse_head(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n" + extra + b"\r\n")
    told = parse_head(with_checksum(head, BODY)).headers["x-amz-checksum-crc32"]
    assert int.from_bytes(b64decode(told), "big") == zlib.crc32(BODY)
    assert with_checksum(parse_head(RANGED), BODY) == RANGED
    flipped = sent(plan(Fault.FLIP, Mix(1), head, BODY, random.Random(1)))
    assert parse_head(flipped[: -len(BODY)]).headers["x-amz-checksum-crc32"] == told
    assert sum(a != b for a, b in zip(flipped[-len(BODY) :], BODY, strict=True)) == 1
