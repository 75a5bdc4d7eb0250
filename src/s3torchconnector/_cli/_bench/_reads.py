"""Reads small objects as a training job does: a ``DataLoader`` whose workers read a dataset with look-ahead.

Workers send reports to the main process, and not the bytes that they have read: what happens to the objects, and how
samples reach the main process, depends on the job.
"""

from __future__ import annotations

import itertools
import math
import signal
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from s3torchconnector._cli._bench._limits import Share
from s3torchconnector._cli._bench._measurement import Report, Requests, Settings
from s3torchconnector._cli._connection import Connection
from s3torchconnector._config import S3ClientConfig
from s3torchconnector._dataset_source import DatasetSource
from s3torchconnector._early_samples import Samples
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._types import ObjectInfo
from s3torchconnector._wire import tracing
from s3torchconnector.s3reader import S3Reader

_AT_ONCE = 1000  # requests whose records are kept before they are counted


@dataclass(frozen=True)
class SmallReads:
    """What all runs read.

    Args:
        connection: how S3 is reached.
        bucket, objects: what is read.
    """

    connection: Connection
    bucket: str
    objects: Sequence[ObjectInfo]

    def run(self, settings: Settings, share: Share, *, once: bool = False) -> list[Report]:
        """Read with these settings: the reports of all processes.

        Args:
            settings: of the run.
            share: when to stop.
            once: read each object once, and keep a trace. Otherwise each process goes round.

        Raises:
            S3Exception: an object could not be read.
            ChildProcessError: a worker was killed.
        """
        dataset = _Reads(self, settings, share, once)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # more workers than processors: that is tried on purpose
            loader: DataLoader[Any] = DataLoader(
                dataset, batch_size=None, num_workers=settings.workers, worker_init_fn=_leave_ctrl_c_to_main_process
            )
            try:
                results = list(loader)
            except RuntimeError as error:  # of the loader itself
                raise ChildProcessError(f"a worker that reads objects has ended: {error}") from None
        for each in results:
            if isinstance(each, Exception):
                raise each
        return results

    def config(self, settings: Settings, share: Share) -> S3ClientConfig:
        """The configuration of a run. A server that is silent does not make it much longer."""
        return self.connection.config(**settings.of_client(), operation_timeout=max(30.0, share.seconds))


class _Reads(IterableDataset[Any]):
    def __init__(self, reads: SmallReads, settings: Settings, share: Share, once: bool) -> None:
        self._reads = reads
        self._settings = settings
        self._share = share.divided(max(1, settings.workers))
        self._once = once

    def __iter__(self) -> Iterator[Report | Exception]:
        worker = get_worker_info()
        number, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        try:
            yield self._read(number, count)
        except Exception as error:  # as it is: a DataLoader would raise another one, with a traceback in its text
            yield error

    def _read(self, number: int, count: int) -> Report:
        objects = self._objects(number, count)
        source = DatasetSource(
            self._reads.connection.region_name,
            lambda _: objects,
            self._reads.connection.endpoint_url,
            _size_of,
            self._reads.config(self._settings, self._share),
        )
        report = Report(time.perf_counter(), requests=Requests(keep=self._once))
        with tracing() as records:
            samples = Samples.of(source, source.objects(), self._settings.look_ahead)
            try:
                self._take(samples, report, records)
            finally:
                samples.close()
                source.client.close()  # waits until what was cancelled has ended, and is in the records
            report.requests.take(records)
        return report

    def _take(self, samples: Iterable[int], report: Report, records: list[Any]) -> None:
        cpu, until = time.process_time(), math.inf
        for size in samples:
            now = time.perf_counter()
            if not report.times:
                cpu, until = time.process_time(), now + self._share.seconds
            report.add(now, size)
            if len(records) > _AT_ONCE:
                report.requests.take(records)
            if now >= until:
                break
        report.cpu_seconds = time.process_time() - cpu

    def _objects(self, number: int, count: int) -> Iterator[S3BucketKeyData]:
        """This worker's share, or all of them, again and again, each worker from another one on; until it is enough."""
        objects, bucket = self._reads.objects, self._reads.bucket
        if self._once:
            chosen: Iterable[ObjectInfo] = itertools.islice(objects, number, None, count)
        else:
            start = len(objects) * number // count
            chosen = itertools.cycle(itertools.chain(objects[start:], objects[:start]))
        left = self._share.bytes
        for info in itertools.islice(chosen, self._share.requests):
            yield S3BucketKeyData(bucket, info.key, info)
            left -= info.size
            if left <= 0:
                return


def _leave_ctrl_c_to_main_process(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends its workers, and they say nothing


def _size_of(reader: S3Reader) -> int:
    return len(reader.read())
