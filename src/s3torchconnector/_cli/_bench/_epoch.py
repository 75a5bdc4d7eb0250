"""One epoch: each object is read once, and each request is kept."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3torchconnector._cli._bench._chrome import chrome_trace
from s3torchconnector._cli._bench._limits import Share
from s3torchconnector._cli._bench._measurement import Measurement, Requests, Settings, summarize
from s3torchconnector._cli._bench._reads import SmallReads
from s3torchconnector._cli._bench._scratch import find, make_small, scratch
from s3torchconnector._cli._connection import Connection
from s3torchconnector._cli._file_errors import named_in_errors
from s3torchconnector._cli._location import Location
from s3torchconnector._wire import TracedRequest, tracing

_MOST_REQUESTS = 50_000  # a viewer shows no more at ease


@dataclass(frozen=True)
class Epoch:
    """The trace of an epoch.

    Attributes:
        place: where.
        measured: the speed of the whole.
        requests: all of them, in the order in which they were sent.
        processes: the names of the processes, by their ids.
    """

    place: Location
    measured: Measurement
    requests: list[TracedRequest]
    processes: Mapping[int, str]

    def write(self, path: Path) -> None:
        """Write it as a Chrome trace."""
        with named_in_errors(str(path)):
            path.write_text(json.dumps(chrome_trace(self.requests, self.processes)), encoding="utf-8")

    def summary(self) -> str:
        """In one line."""
        waits = ", ".join(f"{name} {each * 1e3:.1f} ms" for name, each in self.measured.first_byte.items())
        return (
            f"{self.measured.settings.workers} workers, {len(self.requests):,} requests, "
            f"{self.measured.objects_per_second:,.0f} objects/s, {self.measured.gbps:.2f} Gbit/s; first byte {waits}"
        )

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {"uri": str(self.place), **self.measured.document(), "traced": len(self.requests)}


def run_epoch(reads: SmallReads, settings: Settings, share: Share) -> tuple[Measurement, list[TracedRequest]]:
    """Read each object once: the speed, and the requests."""
    reports = reads.run(settings, share._replace(requests=min(share.requests, _MOST_REQUESTS)), once=True)
    return summarize("small", settings, reports), [each for report in reports for each in report.requests.trace]


def trace_epoch(connection: Connection, place: Location, settings: Settings, share: Share, *, write: bool) -> Epoch:
    """Read each small object below a prefix once; with ``write``, scratch objects if there are none.

    Raises:
        ValueError: there is none.
        S3Exception: S3 refused, or could not be reached.
    """
    own = Requests(keep=True)
    with tracing() as records:
        with connection.opened() as client:
            objects = find(client, place).small
            if not objects and not write:
                raise ValueError(f"nothing below {place} can be read as a small object; name another prefix")
            with nullcontext() if objects else scratch(client, place) as folder:
                objects = objects if folder is None else make_small(client, folder)
                measured, requests = run_epoch(SmallReads(connection, place.bucket, objects), settings, share)
        own.take(records)
    ordered = sorted(own.trace + requests, key=lambda each: each.sent)
    others = [process for process in dict.fromkeys(each.process for each in ordered) if process != os.getpid()]
    names = {os.getpid(): "main process", **{process: f"worker {number}" for number, process in enumerate(others)}}
    return Epoch(place, measured, ordered, names)
