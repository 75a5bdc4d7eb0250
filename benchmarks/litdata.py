"""litdata's `StreamingRawDataset`, which reads raw objects from S3 as ours does: its environment, and its work.

It gets what its documentation recommends for objects of this size, and what was fastest here:

- its own asynchronous client (obstore), and uvloop, which it uses if it is installed
- a sampler of PyTorch that shuffles, and a whole batch asked for at once (`__getitems__`)
- nothing kept on the disk (`cache_files=False`), and no look-ahead, which it has for objects in order only
- 32 requests in flight for each worker, as many as its client keeps connections; without a number, it asks for a whole
  batch at once and opens the other connections anew each time, which took more of the processors
- the list of the objects ready before the clock starts, as is the manifest of ours

Its client refuses plain HTTP, and has no setting for that; the setting of obstore is added to its own.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.cases import LITDATA, Case
from benchmarks.connector import BATCH, WORKERS
from benchmarks.environments import Environment, EnvironmentFault
from benchmarks.job import Job
from benchmarks.meter import Meter
from benchmarks.training import marks, second_epoch

VERSION = "0.2.76"
# What else it imports for this work is in our environment. torchvision and tifffile are for images and videos.
_PACKAGES = (f"litdata=={VERSION}", "obstore==0.12.1", "uvloop==0.23.0")
_ENVIRONMENT = Environment("litdata", VERSION, _PACKAGES, imports=("obstore", "uvloop"))


def interpreter(folder: Path) -> Path:
    """The interpreter of litdata's environment below `folder`, which is created if needed.

    Raises:
        EnvironmentFault: litdata cannot be installed here, or another version is found in its place.
    """
    return _ENVIRONMENT.interpreter(folder)


def beside(wanted: tuple[Case, ...], folder: Path) -> tuple[tuple[Case, ...], Path | None, str]:
    """The cases, and the interpreter below `folder` if one of them needs it.

    If litdata cannot be installed here, the cases are those that can do without it, and a line says which cannot.

    Raises:
        EnvironmentFault: none can.
    """
    without = tuple(case for case in wanted if LITDATA not in case.who)
    if len(without) == len(wanted):
        return wanted, None, ""
    try:
        return wanted, interpreter(folder), ""
    except EnvironmentFault as error:
        if not without:
            raise
        left_out = ", ".join(case.name for case in wanted if case not in without)
        return without, None, f"left out: {left_out}: {str(error).strip().splitlines()[-1]}"


def shuffled(job: Job, meter: Meter) -> int:
    """The second epoch through persistent workers, as in training.py. Returns the number of objects."""
    import torch
    from torch.utils.data import DataLoader

    with tempfile.TemporaryDirectory() as folder:
        loader = DataLoader(
            _dataset(job, Path(folder)),
            BATCH,
            shuffle=True,
            generator=torch.Generator().manual_seed(1),
            num_workers=WORKERS,
            persistent_workers=True,
            collate_fn=marks,
        )
        return second_epoch(job, meter, loader)


WORK: dict[str, Callable[[Job, Meter], int]] = {"shuffled-raw": shuffled}


def _dataset(job: Job, folder: Path) -> Any:
    from litdata import StreamingRawDataset  # type: ignore[import-not-found]
    from litdata.raw.indexer import BaseIndexer, FileMetadata  # type: ignore[import-not-found]
    from litdata.streaming import downloader  # type: ignore[import-not-found]

    files = [FileMetadata(job.uri(job.small(number)), job.small_size) for number in range(job.objects)]

    class Indexer(BaseIndexer):  # type: ignore[misc]
        """The objects, without a listing."""

        def discover_files(self, *_: Any) -> list[Any]:
            return files

        def build_or_load_index(self, *_: Any, **__: Any) -> list[Any]:
            return files

    options = {"region_name": job.region}
    if job.endpoint:
        options["endpoint_url"] = job.endpoint
        if job.endpoint.startswith("http:"):
            downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = "true"
    return StreamingRawDataset(
        os.path.dirname(job.uri(job.small(0))),
        cache_dir=str(folder),
        indexer=Indexer(),
        storage_options=options,
        cache_files=False,
        max_prefetch=0,
        max_concurrent_downloads=32,
    )
