"""Describes what a program waits for, for a person who looks at a stalled job.

Nothing here takes a lock or waits, so the text is available no matter which thread is stalled and which locks it holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from s3torchconnector._activity import activities
from s3torchconnector._transfer.engine._runtime import Runtime

_MOST = 100  # small objects and threads that are listed


def debug_state(client: str, runtime: Runtime | None) -> str:
    """The state of ``client`` and its ``runtime`` in this process, and what all threads of the package do."""
    lines = [f"{client} in process {os.getpid()}"]
    if runtime is None:
        lines.append("  not in use: it has made no request in this process, or was closed")
    else:
        lines += [f"  {part!r}" for part in runtime.parts]
        lines += _listed("small objects:", runtime.multiplexer.requests() if runtime.multiplexer else [])
    lines += _listed("threads:", [f"{name}: {does}" for name, does in activities()])
    return "\n".join(lines)


def _listed(title: str, items: Iterable[str]) -> list[str]:
    found = list(items)
    more = len(found) - _MOST
    return [title, *[f"  {each}" for each in found[:_MOST] or ["none"]], *([f"  and {more} more"] if more > 0 else [])]
