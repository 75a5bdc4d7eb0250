"""Which checkpoints go when a new one has been committed. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def to_delete(steps: Iterable[int], keep_last: int | None, keep_every: int | None, saved: int) -> list[int]:
    """The committed steps that need not be kept, in order.

    The newest, and the one just ``saved`` (which is not the newest in a run that went back), are always kept.

    Args:
        steps: all committed steps.
        keep_last: how many of the newest to keep; None keeps all.
        keep_every: steps divisible by it are kept for ever; None for no such.
    """
    ordered = sorted(set(steps))
    if keep_last is None:
        return []
    kept = {saved, *(step for step in ordered if keep_every is not None and step % keep_every == 0)}
    return [step for step in ordered[:-keep_last] if step not in kept]
