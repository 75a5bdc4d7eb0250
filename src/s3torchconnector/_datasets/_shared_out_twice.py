"""Whether Accelerate, or the Hugging Face Trainer, shares out again what a dataset has shared out among ranks already.

Accelerate has one rank read for all of them (``DataLoaderDispatcher``, its default for iterable datasets), or has each
rank keep some of what it reads (``IterableDatasetShard``). If the dataset gives each rank its share as well, the job
trains on one part of the data in silence. Neither informs the dataset. So the stack is looked at: in the process that
iterates; in a forked worker, whose stack begins with its parent's; and when a dataset is pickled for another worker.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from s3torchconnector._errors import S3ConfigurationError

_MODULES = ("accelerate.data_loader", "transformers.trainer_pt_utils")
_CLASSES = ("DataLoaderDispatcher", "IterableDatasetShard")


def refuse_second_sharding(ranks: int, what_to_do: str) -> None:
    """
    Args:
        ranks: among how many the dataset shares its samples.
        what_to_do: the end of the error, which says what to change.

    Raises:
        S3ConfigurationError: the samples of this rank would be shared out again.
    """
    if ranks > 1 and any(_shares_out(loader) for loader in _callers("__iter__")):
        raise S3ConfigurationError(
            "this dataset has divided its samples among the ranks, and Accelerate (or the Hugging Face Trainer) would "
            f"divide each share again: most of the data would never be seen. {what_to_do}"
        )


def is_set_by_accelerate() -> bool:
    """Whether a DataLoader of Accelerate, which counts passes from 0, sets the epoch now."""
    return any(_callers("set_epoch"))


def _callers(method: str) -> Iterator[Any]:
    """The objects of Accelerate whose ``method`` is on the stack."""
    frame: FrameType | None = sys._getframe(1) if any(name in sys.modules for name in _MODULES) else None
    while frame is not None:
        if frame.f_code.co_name == method and frame.f_globals.get("__name__") in _MODULES:
            yield frame.f_locals.get("self")
        frame = frame.f_back


def _shares_out(loader: Any) -> bool:
    """Whether it gives several ranks their shares of what the dataset yields."""
    if type(loader).__name__ not in _CLASSES:
        return False
    return (getattr(loader, "num_processes", None) or int(loader.state.num_processes)) > 1
