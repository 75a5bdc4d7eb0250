"""What is measured: one case a row, with the goal that it has to meet.

Goals are ratios measured side by side in one run, and costs of this version; they are why this benchmark exists.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

OURS, PEER, RANGED, LITDATA, LIMIT = "ours", "peer", "peer-ranged", "litdata", "limit"
SERVERS = {
    "plain": "plain",
    "s3": "S3-shaped",
    "tls": "TLS",
    "uploads": "25 ms a request",
    "listing": "50-100 ms a page",
    "bucket": "in the bucket",
}


@dataclass(frozen=True)
class Goal:
    """A bound on one quantity of `results.Row`: at least `value`, or at most."""

    quantity: str
    value: float
    at_most: bool = False

    def met(self, measured: float) -> bool:
        return measured <= self.value if self.at_most else measured >= self.value

    def words(self, measured: float) -> str:
        """The measured value, in the goal's unit and with enough digits to compare it."""
        return {
            "versus_peer": f"{measured:.2f}x",
            "versus_litdata": f"{measured:.2f}x",
            "versus_limit": f"{measured:.1%}",
            "cpu_ms": f"{measured:.3f} ms",
            "cpu_us": f"{measured:.2f} us",
            "growth_mib": f"{measured:.0f} MiB",
            "transfer": f"{measured:.2f}x",
        }[self.quantity]

    def __str__(self) -> str:
        sign = "≤" if self.at_most else "≥"
        return {
            "versus_peer": f"{sign} {self.value:g}x 1.5.0",
            "versus_litdata": f"{sign} {self.value:g}x litdata",
            "versus_limit": f"{sign} {self.value:.0%} of limit",
            "cpu_ms": f"{sign} {self.value:g} ms CPU each",
            "cpu_us": f"{sign} {self.value:g} us CPU each",
            "growth_mib": f"{sign} {self.value:g} MiB",
            "transfer": f"{sign} {self.value:g}x the bytes needed",
        }[self.quantity]


@dataclass(frozen=True)
class Case:
    """One row: `work` of worker.py on `server` (one of `SERVERS`), by each of `who`.

    `unit` is what is counted: objects, keys, bytes of the checkpoint, or starts. `amount` is how many of
    them, `peer_amount` how many the peer does where `amount` would take it minutes; speeds are compared,
    not times. `connections` is what the limit uses: the number that was fastest on this server. `ranks` are
    processes of one distributed checkpoint.
    """

    name: str
    title: str
    work: str
    server: str
    unit: str
    goals: tuple[Goal, ...]
    who: tuple[str, ...] = (OURS, PEER, LIMIT)
    amount: int = 0
    peer_amount: int = 0
    connections: int = 16
    ranks: int = 1

    def heading(self, size: int) -> str:
        """What the row measures and where, for a checkpoint of `size` bytes."""
        return f"{self.work_of(size)}, {SERVERS[self.server]}"

    def work_of(self, size: int) -> str:
        """What the row measures, for a checkpoint of `size` bytes."""
        return self.title.format(amount=self.amount, size=f"{size / 2**30:.2g} GiB")

    def amount_for(self, who: str, quick: bool) -> int:
        if who.startswith(PEER) and self.peer_amount:
            return self.peer_amount
        return self.amount // 4 if quick and self.unit == "objects" else self.amount


_READERS = (OURS, PEER, RANGED, LIMIT)
_WIRE = (Goal("versus_limit", 0.9),)
_LOAD = (Goal("versus_peer", 5), Goal("versus_limit", 1))
_DCP_LOAD, _DCP_SAVE = (Goal("versus_peer", 4),), (Goal("versus_peer", 2),)
_BOTH = (OURS, PEER)
_TENTH = "a tenth of the tensors of {size} by dcp.load"
_BLOCKED = "dcp.async_save of {size}: what blocks the caller"

CASES = (
    Case(
        "iterable",
        "iterable dataset, 110 KiB objects",
        "iterable",
        "s3",
        "objects",
        (Goal("versus_peer", 100), Goal("cpu_ms", 0.25, at_most=True)),
        amount=6000,
        peer_amount=100,
        connections=256,
    ),
    Case(
        "iterable-plain",
        "iterable dataset, 110 KiB objects",
        "iterable",
        "plain",
        "objects",
        (Goal("versus_peer", 3),),
        amount=12000,
        peer_amount=3000,
    ),
    Case(
        "map",
        "map dataset, DataLoader(batch_size=64, num_workers=4)",
        "map",
        "s3",
        "objects",
        (Goal("versus_peer", 15),),
        who=(OURS, PEER),
        amount=8192,
        peer_amount=512,
    ),
    Case(
        "shuffled",
        "S3StreamingDataset, shuffled, 110 KiB objects",
        "shuffled",
        "s3",
        "objects",
        (Goal("versus_limit", 0.9),),
        who=(OURS, LIMIT),
        amount=6000,
    ),
    Case(
        "shuffled-workers",
        "S3DataLoader, shuffled, batches of 64, 4 persistent workers",
        "shuffled-workers",
        "s3",
        "objects",
        (Goal("versus_peer", 20), Goal("versus_limit", 1.3)),
        amount=8192,
        peer_amount=512,
    ),
    Case(
        "shuffled-raw",
        "{amount:,} shuffled objects of 110 KiB, batches of 64, 4 persistent workers",
        "shuffled-raw",
        "s3",
        "objects",
        (Goal("versus_litdata", 1),),
        who=(OURS, LITDATA),
        amount=8192,
    ),
    Case(
        "first-objects",
        "{amount} objects by a fresh client",
        "first-objects",
        "s3",
        "objects",
        (Goal("versus_peer", 100),),
        who=_BOTH,
        amount=600,
        peer_amount=100,
    ),
    Case(
        "first-batches",
        "{amount:,} objects, batches of 64, 4 fresh workers",
        "first-batches",
        "s3",
        "objects",
        (Goal("versus_peer", 16),),
        who=_BOTH,
        amount=1024,
        peer_amount=512,
    ),
    Case("readinto", "readinto of {size}", "readinto", "s3", "bytes", _WIRE, _READERS, connections=48),
    Case("readinto-plain", "readinto of {size}", "readinto", "plain", "bytes", _WIRE, _READERS),
    Case("readinto-tls", "readinto of {size}", "readinto", "tls", "bytes", _WIRE, _READERS),
    Case("torch-load", "torch.load of {size}", "load", "s3", "bytes", _LOAD),
    Case("torch-load-plain", "torch.load of {size}", "load", "plain", "bytes", _LOAD),
    Case(
        "torch-save",
        "torch.save of {size}",
        "save",
        "uploads",
        "bytes",
        (Goal("versus_peer", 2.5),),
    ),
    Case("dcp-load", "dcp.load of {size}", "dcp-load", "s3", "bytes", _DCP_LOAD, _BOTH),
    Case("dcp-load-2", "dcp.load of {size} by 2 ranks", "dcp-load", "s3", "bytes", _DCP_LOAD, _BOTH, ranks=2),
    Case("dcp-partial", _TENTH, "dcp-partial", "s3", "bytes", (Goal("transfer", 1.2, at_most=True),), _BOTH),
    Case("dcp-save", "dcp.save of {size}", "dcp-save", "uploads", "bytes", _DCP_SAVE, _BOTH),
    Case("dcp-save-2", "dcp.save of {size} by 2 ranks", "dcp-save", "uploads", "bytes", _DCP_SAVE, _BOTH, ranks=2),
    Case("dcp-async", _BLOCKED, "dcp-async", "uploads", "bytes", (Goal("versus_limit", 0.9),)),
    Case("safetensors-load", "safetensors file of {size}, loaded", "safetensors-load", "s3", "bytes", (), _BOTH),
    Case("safetensors-save", "safetensors file of {size}, saved", "safetensors-save", "uploads", "bytes", (), _BOTH),
    Case("lightning-load", "Lightning checkpoint of {size}, loaded", "lightning-load", "s3", "bytes", (), _BOTH),
    Case("lightning-save", "Lightning checkpoint of {size}, saved", "lightning-save", "uploads", "bytes", (), _BOTH),
    Case("manager-save", "S3CheckpointManager.save of {size}", "manager-save", "uploads", "bytes", (), (OURS,)),
    Case(
        "stream",
        "{size} in reads of 1 MiB",
        "stream",
        "s3",
        "bytes",
        (Goal("versus_peer", 2), Goal("growth_mib", 160, at_most=True)),
        who=(OURS, PEER),
    ),
    Case(
        "listing",
        "listing {amount:,} keys",
        "listing",
        "listing",
        "keys",
        (Goal("versus_peer", 8), Goal("cpu_us", 6, at_most=True)),
        who=(OURS, PEER),
        amount=100_000,
    ),
    Case(
        "startup",
        "fresh process to the first object's bytes",
        "startup",
        "plain",
        "starts",
        (Goal("versus_peer", 1),),
        who=(OURS, PEER),
        amount=1,
    ),
)
BY_NAME = {case.name: case for case in CASES}


def in_bucket(objects: int) -> tuple[Case, ...]:
    """The rows that make sense against a real bucket that holds so many small objects: all but other ways to ours."""
    chosen = [case for case in CASES if not case.name.endswith(("-plain", "-tls"))]
    return tuple(_in_bucket(case, objects) for case in chosen)


def _in_bucket(case: Case, objects: int) -> Case:
    amount = objects if case.unit in ("objects", "keys") else case.amount
    return replace(case, server="bucket", amount=amount, peer_amount=min(case.peer_amount, objects), connections=64)
