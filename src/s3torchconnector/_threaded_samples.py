"""Samples whose transforms run on threads: handed out in order, and failing, as if one were made after the other.

The thread that iterates takes readers from the look-ahead, in order, and queues them for a *team* of threads; then it
waits for the next sample in order. A bounded number is queued, being made, or made and not handed out. Threads refer to
their team and not to the iterator, so that dropping the iterator ends them. The queue is implemented in C: a finaliser
may put something in at any moment.

A forked child has no threads: it makes its own team, and opens the samples again that were not made yet, since the
parent's threads may have read half of them.
"""

from __future__ import annotations

import atexit
import os
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from queue import SimpleQueue
from time import monotonic, perf_counter_ns
from typing import Any

from s3torchconnector._activity import activity
from s3torchconnector._dataset_source import DatasetSource
from s3torchconnector._early_samples import Chosen, OpenedEarly, Samples
from s3torchconnector._latch import Latch
from s3torchconnector._threads import start_thread

_SECONDS_AT_EXIT = 10.0  # that the interpreter's exit waits for transforms that run


class _Job:
    """One sample to make. ``done`` opens when ``sample`` or ``error`` is set, unless it was ``dropped``."""

    __slots__ = ("chosen", "done", "dropped", "error", "nanoseconds", "reader", "sample")

    def __init__(self, chosen: Chosen | None, reader: OpenedEarly | None) -> None:
        self.chosen = chosen
        self.reader = reader
        self.done = Latch()
        self.dropped = False  # nobody wants it any more
        self.sample: Any = None
        self.error: BaseException | None = None
        self.nanoseconds = 0

    @classmethod
    def failed(cls, error: Exception) -> _Job:
        """In the place of an object that could not be opened."""
        job = cls(None, None)
        job.error = error
        job.done.open()
        return job

    def __str__(self) -> str:
        chosen = self.chosen
        return "a sample" if chosen is None else f"s3://{chosen.item.bucket}/{chosen.item.key}"

    @activity("makes a sample of {}", "self")
    def run(self) -> None:
        """Make the sample, on a thread of the team. Does not raise."""
        before = perf_counter_ns()
        try:
            if self.chosen is not None and self.reader is not None:
                self.sample = self.chosen.transform(self.reader)
        except BaseException as error:
            self.error = error
        self.reader = None
        self.nanoseconds = perf_counter_ns() - before
        self.done.open()

    @activity("waits for a thread that makes a sample")
    def wait(self) -> None:
        """Wait until it is done; the main thread can be interrupted."""
        self.done.wait()


class _Team:
    """Threads of this process that do jobs, until ``close``.

    Raises:
        RuntimeError: no thread can be started.
    """

    def __init__(self, threads: int) -> None:
        self.pid = os.getpid()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._ended: list[Latch] = []
        self._closed = False
        for number in range(threads):
            ended = Latch()
            try:
                start_thread(f"transform {number}", _work, self, ended)
            except RuntimeError:
                if not self._ended:
                    raise
                break  # as many as can be had
            self._ended.append(ended)
        _teams.add(self)

    def submit(self, job: _Job) -> None:
        """Have a thread do a job, or close its reader if it is dropped before."""
        self._jobs.put(job)

    def close(self) -> None:
        """End the threads: those that run a transform when that ends. Waits for nothing; a finaliser may call it."""
        if self.pid == os.getpid() and not self._closed:
            self._closed = True
            for _ in self._ended:
                self._jobs.put(None)

    def work(self) -> None:
        """Do jobs."""
        while (job := self._jobs.get()) is not None:
            if self._closed or job.dropped:
                if job.reader is not None:
                    job.reader.close()
            else:
                job.run()
            del job  # or it would be kept until the next one comes

    def wait_closed(self, seconds: float) -> None:
        """Wait until all threads have ended."""
        end = monotonic() + seconds
        for ended in self._ended:
            ended.wait(max(0.0, end - monotonic()))


_teams: weakref.WeakSet[_Team] = weakref.WeakSet()


def _work(team: _Team, ended: Latch) -> None:
    try:
        team.work()
    finally:
        del team
        ended.open()


def _close_at_exit() -> None:
    """End transforms before the interpreter does: a thread that it ends inside an extension may abort the process."""
    teams = [team for team in list(_teams) if team.pid == os.getpid()]
    for team in teams:
        team.close()
    for team in teams:
        team.wait_closed(_SECONDS_AT_EXIT)


atexit.register(_close_at_exit)


class ThreadedSamples(Samples[Chosen]):
    """Samples that threads make. They are started when the first sample is asked for, in the process that asks.

    Args:
        chosen, sources, most: see ``Samples``.
        threads: how many.
        ahead: most samples that are queued, under way, or made and not handed out yet.
    """

    def __init__(
        self, chosen: Iterable[Chosen], sources: Sequence[DatasetSource], most: int | None, threads: int, ahead: int
    ) -> None:
        super().__init__(chosen, sources, most)
        self._threads = threads
        self._ahead = ahead
        self._pending: deque[_Job] = deque()
        self._at_end = False
        self._team: _Team | None = None

    def __next__(self) -> Any:
        self._fill()
        if not self._pending:
            self.close()
            raise StopIteration
        job = self._pending.popleft()
        if job.chosen is not None:
            self.handed.note(job.chosen)
        self._fill()
        job.wait()
        self.handed.nanoseconds = job.nanoseconds
        error, job.error = job.error, None
        if error is None:
            return job.sample
        try:
            raise error
        finally:
            del self, job, error  # or else the traceback would keep what is in flight, as long as the error is kept

    def skip(self) -> None:
        """Leave out the next sample, if there is one."""
        self._fill()
        if self._pending:
            self._pending.popleft().dropped = True

    def close(self) -> None:
        """Cancel what is in flight, and end the threads: there are no more samples."""
        self._at_end = True
        self._pending.clear()
        if self._team is not None:
            self._team.close()
        super().close()

    def _fill(self) -> None:
        """Queue what there is room for."""
        team = self._team
        if team is None or team.pid != os.getpid():
            team = self._make_team()
        while not self._at_end and len(self._pending) < self._ahead:
            try:
                reader = next(self._readers)
            except StopIteration:
                self._at_end = True
            except Exception as error:
                self._at_end = True
                self._pending.append(_Job.failed(error))
            else:
                job = _Job(self._opened.popleft(), reader)
                self._pending.append(job)
                team.submit(job)

    def _make_team(self) -> _Team:
        self._team = team = _Team(self._threads)
        weakref.finalize(self, team.close).atexit = False
        before, self._pending = self._pending, deque()
        for job in before:  # of the parent
            if not job.done.is_open and job.chosen is not None:
                job = _Job(job.chosen, job.chosen.open())
                team.submit(job)
            self._pending.append(job)
        return team
