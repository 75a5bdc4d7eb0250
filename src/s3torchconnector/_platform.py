"""What only POSIX systems have. Windows has no fork, so there is nothing to do when one happens."""

from __future__ import annotations

import os
from collections.abc import Callable

IS_POSIX = hasattr(os, "fork")


def at_fork(
    *,
    before: Callable[[], object] | None = None,
    after_in_parent: Callable[[], object] | None = None,
    after_in_child: Callable[[], object] | None = None,
) -> None:
    """``os.register_at_fork``, where processes fork."""
    if not hasattr(os, "register_at_fork"):
        return
    steps = {"before": before, "after_in_parent": after_in_parent, "after_in_child": after_in_child}
    os.register_at_fork(**{name: step for name, step in steps.items() if step is not None})
