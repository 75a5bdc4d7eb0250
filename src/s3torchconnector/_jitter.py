"""Randomness of pauses, from the operating system.

Not from ``random``, whose draws belong to the program: it may have seeded them to repeat a run, and alike on all ranks,
which would then send in step.
"""

from __future__ import annotations

import random
from collections.abc import Callable

jitter: Callable[[], float] = random.SystemRandom().random
"""Return a number in [0, 1); safe in threads and forked processes."""
