"""Which checkpoints to delete after a new one has been committed. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def to_delete(steps: Sequence[int], keep_last: int | None, keep_every: int | None, saved: int) -> list[int]:
    """The committed steps to delete, in the order in which they were committed.

    The newest, and the one just ``saved``, are always kept. A run that went back to an earlier step commits smaller
    steps than before, but its checkpoints are the newer ones.

    Args:
        steps: all committed steps, in the order in which they were committed.
        keep_last: how many of the newest to keep. None keeps all.
        keep_every: steps that are divisible by it are kept. None keeps no such steps.
        saved: the step that was just committed.
    """
    if keep_last is None:
        return []
    kept = {saved, *(step for step in steps if keep_every is not None and step % keep_every == 0)}
    return [step for step in steps[:-keep_last] if step not in kept]
