"""Which process this is: a finaliser, or the end of a generator, asks before it ends what its process has begun."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def process_id(
    _of_system: Callable[[], int] = os.getpid, _is_ending: Callable[[], bool] = sys.is_finalizing
) -> int | None:
    """The number of this process; None once its interpreter ends, when no thread goes on and modules lose their names.

    Have it as an attribute of the class: the names of its module may be gone by then, too.
    """
    return None if _is_ending() else _of_system()
