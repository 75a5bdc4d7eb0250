"""`python -m benchmarks.store FOLDER SIZE RANKS`: PyTorch stores the distributed checkpoint that is loaded."""

from __future__ import annotations

import sys

from benchmarks.distributed import store

if __name__ == "__main__":
    store(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
