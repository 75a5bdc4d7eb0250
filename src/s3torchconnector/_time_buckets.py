"""How times are counted: in buckets, each a little longer than the one before. Pure.

A module of its own, because every client counts, and few programs look at ``_metrics``.
"""

from __future__ import annotations

NO_RESPONSE = 0  # as the status of a request
# Four to the power of two, so that a quantile is at most 19 % too large; all that is sooner or later is in the ends.
BOUNDS = tuple([2.0 ** (exponent / 4) for exponent in range(-56, 25)])
BUCKETS = len(BOUNDS) + 1
