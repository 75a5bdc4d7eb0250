"""The faults of the misbehaving proxy: drawn from a seed, and planned before anything is sent.

The decision on a response depends only on the seed, the number of its connection and its number on that connection, so
that a failure can be repeated with the seed that the test printed.
"""

from __future__ import annotations

import base64
import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from s3torchconnector import _errors
from tests.servers.http_messages import Head, ReceivedRequest, s3_error


class Fault(str, Enum):
    """One way to misbehave. The values are for reports."""

    DROP = "closed before the server had the request"
    LOSE = "response lost"
    CUT = "cut off"
    INTERNAL_ERROR = "500 InternalError"
    SLOW_DOWN = "503 SlowDown"
    STALL = "stalled"
    TRICKLE = "trickled"
    WRONG_RANGE = "wrong Content-Range"
    STALE = "closed while idle"
    HALF_CLOSE = "half closed"
    FLIP = "flipped byte"
    HANDSHAKE = "slow TLS handshake"


# A flipped byte shows only to a client that verifies checksums.
VERIFIED: tuple[Fault, ...] = (Fault.FLIP,) if hasattr(_errors, "S3ChecksumError") else ()
EVERY_RESPONSE = (
    Fault.DROP, Fault.LOSE, Fault.CUT, Fault.INTERNAL_ERROR, Fault.SLOW_DOWN, Fault.STALL, Fault.TRICKLE,
    Fault.WRONG_RANGE, Fault.STALE, Fault.HALF_CLOSE, *VERIFIED,
)  # fmt: skip
_CHECKSUM = b"x-amz-checksum-crc32: "
_OBJECTS_ONLY = {Fault.WRONG_RANGE, Fault.FLIP}
HARMLESS = {None, Fault.STALE}
"""After these, the client has the response; one that trickles may time out on a busy machine."""


class End(Enum):
    """How a connection ends."""

    CLOSE = "FIN"
    RESET = "RST"
    HALF = "FIN, but still reading"


@dataclass(frozen=True)
class Pause:
    """Send nothing for a while."""

    seconds: float


Step = bytes | Pause | End


@dataclass(frozen=True)
class Mix:
    """Which faults, how many, how long.

    Args:
        seed: what every decision is drawn from.
        fraction: the share of responses with a fault.
        faults: the possible faults, all equally likely.
        stall: seconds of a stall, more than the client's time-outs.
        breath: seconds between the pieces of what trickles, less than the client's time-outs.
    """

    seed: int
    fraction: float = 0.2
    faults: Sequence[Fault] = EVERY_RESPONSE
    stall: float = 1.5
    breath: float = 0.3

    def fault_for(self, request: ReceivedRequest, connection: int, number: int) -> tuple[Fault | None, random.Random]:
        """The fault of response ``number`` on this connection, and the randomness for its details."""
        dice = random.Random(f"{self.seed}/{connection}/{number}")
        if dice.random() >= self.fraction:
            return None, dice
        is_object = request.method == "GET" and not request.query
        possible = [fault for fault in self.faults if is_object or fault not in _OBJECTS_ONLY]
        return (dice.choice(possible) if possible else None), dice

    def handshake_delay(self, connection: int) -> float:
        """Seconds before the server's side of a TLS handshake: some within, some beyond the client's time-out."""
        dice = random.Random(f"{self.seed}/{connection}")
        return dice.choice((self.breath, self.stall)) if dice.random() < self.fraction else 0.0


def error_response(fault: Fault) -> bytes | None:
    """The response that replaces the server's; None if the server is asked."""
    if fault is Fault.SLOW_DOWN:
        return s3_error(503, "SlowDown")
    return s3_error(500, "InternalError") if fault is Fault.INTERNAL_ERROR else None


def plan(fault: Fault | None, mix: Mix, head: Head, body: bytes, dice: random.Random) -> list[Step]:
    """What to do with a good response."""
    if fault is None or fault is Fault.TRICKLE:
        pieces = [head.raw, body] if fault is None else _trickle(head.raw + body, mix, dice)
        return list(pieces)
    if fault is Fault.STALE:
        return [head.raw, body, Pause(dice.uniform(0, 0.05)), End.CLOSE]
    if fault is Fault.LOSE:
        return [End.CLOSE]
    if fault is Fault.WRONG_RANGE:
        return [_with_wrong_range(head, dice), body]
    if fault is Fault.FLIP:
        raw = with_checksum(head, body)
        return [raw, _flipped(body, dice) if _CHECKSUM in raw else body]  # without a checksum, no client could notice
    began = _beginning(head.raw, body, dice)
    if fault is Fault.STALL:
        return [began, Pause(mix.stall), End.CLOSE]
    if fault is Fault.HALF_CLOSE:
        return [began, End.HALF, Pause(mix.stall), End.CLOSE]
    return [began, dice.choice((End.CLOSE, End.RESET))]


def _beginning(head: bytes, body: bytes, dice: random.Random) -> bytes:
    """Nothing, a part of the head, the head, or some of the body: never all."""
    stop = dice.choice(
        (0, dice.randrange(len(head)), len(head) if body else 0, len(head) + dice.randrange(len(body) or 1))
    )
    return (head + body)[: min(stop, len(head) + len(body) - 1)]


def _trickle(message: bytes, mix: Mix, dice: random.Random) -> list[Step]:
    cuts = sorted(dice.randrange(len(message)) for _ in range(dice.randrange(1, 6)))
    steps: list[Step] = []
    for start, stop in zip([0, *cuts], [*cuts, len(message)], strict=True):
        steps += [message[start:stop], Pause(mix.breath)]
    return steps[:-1]


def _with_wrong_range(head: Head, dice: random.Random) -> bytes:
    """Bytes from somewhere else, or of an object of another size; a response without the header stays as it is."""
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", head.headers.get("content-range", ""))
    if match is None:
        return head.raw
    first, last, size = map(int, match.groups())
    # Never both by as much: of an object's last bytes, only a checksum could detect that.
    shift, growth = dice.choice(((1, 0), (0, 7), (dice.randrange(1, 1 << 20), 1 << 20)))
    wrong = f"bytes {first + shift}-{last + shift}/{size + growth}"
    return head.raw.replace(match[0].encode(), wrong.encode())


def with_checksum(head: Head, body: bytes) -> bytes:
    """The head with ``x-amz-checksum-crc32`` if the body is a whole object; else unchanged."""
    whole = f"bytes 0-{len(body) - 1}/{len(body)}"
    if head.headers.get("content-range", whole) != whole or _CHECKSUM in head.raw:
        return head.raw
    value = base64.b64encode(zlib.crc32(body).to_bytes(4, "big"))
    return head.raw[:-2] + _CHECKSUM + value + b"\r\nx-amz-checksum-type: FULL_OBJECT\r\n\r\n"


def _flipped(body: bytes, dice: random.Random) -> bytes:
    if not body:
        return body
    place = dice.randrange(len(body))
    return body[:place] + bytes([body[place] ^ (1 << dice.randrange(8))]) + body[place + 1 :]
