"""A load: the requests of all files, in flight at the same time.

The thread that loads decides, and calls the planner; workers receive. They report through a queue that the head of a
large item has arrived (then the requests inside the item can be sent), that a request is done, or that one has failed.
The memory of items that are received into buffers is reserved from the client's budget before they are requested, and
given back when they are at their targets. If nothing is in flight, one item may exceed the budget.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue

from torch.distributed.checkpoint.planner import LoadPlanner

from s3torchconnector._errors import S3Exception
from s3torchconnector._progress import Progress
from s3torchconnector._transfer import (
    CountedVersion,
    FetchGroup,
    FillableBytes,
    Loaded,
    Range,
    RangeFetch,
    Runtime,
    discarded,
    prepare_verification,
)
from s3torchconnector._uri import display_uri, parse_object_uri
from s3torchconnector._wire import Caller, CancelToken
from s3torchconnector.dcp._item import StoredItem
from s3torchconnector.dcp._plan import Discard, Gather, Piece, Request, is_large, requests_for, steps_of

_Event = Callable[[], None]
_ITEMS_AT_ONCE = 512  # finding the targets of so many items takes about as long as a round trip


class StoredFile:
    """One object of ``size`` bytes, and the items that are wanted of it, in the order of their position.

    The bytes that are received are counted in ``progress``.
    """

    def __init__(self, uri: str, size: int, items: Sequence[StoredItem], progress: Progress) -> None:
        self.version = CountedVersion(*parse_object_uri(uri), progress)
        self.loaded = Loaded(self.version)
        self.size = size
        self.items = sorted(items, key=lambda item: item.extent)
        self.extents = [item.extent for item in self.items]

    def forget_empty(self) -> None:
        """Remove the items that have no bytes."""
        self.items = [item for item in self.items if item.left]
        self.extents = [item.extent for item in self.items]

    @property
    def is_wanted_whole(self) -> bool:
        """Whether the items are all of the file."""
        edges = [0, *(edge for extent in self.extents for edge in extent), self.size]
        return all(stop == start for stop, start in zip(edges[::2], edges[1::2], strict=True))


class _Job:
    """One request, which receives its bytes step by step."""

    def __init__(self, load: Load, file: StoredFile, request: Request) -> None:
        self.file = file
        self.request = request
        self.memory: int | None = None  # bytes to reserve, as soon as that is known
        self._load = load

    @property
    def beginning(self) -> list[StoredItem]:
        """The items whose first byte is in this request."""
        items = self.file.items
        return [items[number] for number, start, _ in self.request.pieces if start == items[number].extent.start]

    def fetch(self, caller: Caller, cancel: CancelToken | None = None, /) -> Range:
        """Receive; runs on a worker."""
        try:
            views = self._views()
            wanted = Range(self.request.start, self.request.stop)
            fetch = RangeFetch(self.file.version, wanted.start, wanted.stop, partial(self._next, views))
            received = fetch.fetch(caller, cancel)
            next(views, None)  # which looks at the last of them
        except BaseException as error:
            self._load.post(partial(_raise, error))
            raise
        self._load.post(partial(self._load.request_done, self, fetch))
        return received

    def _next(self, views: Iterator[memoryview], rest: Range) -> memoryview:
        """Where to receive the next bytes. Decided when they arrive, since it may depend on the bytes before them."""
        if rest.stop != self.request.stop:
            version = self.file.version
            uri = display_uri(version.bucket, version.key)
            raise S3Exception(
                f"{uri} is not the file that .metadata describes: it has {version.size} bytes, and a stored item ends "
                f"at {self.request.stop}. The checkpoint is damaged: load another one"
            )
        return next(views)

    def _views(self) -> Iterator[memoryview]:
        for step in steps_of(self.request, self.file.extents):
            if isinstance(step, Discard):
                yield from discarded(step.count)
            elif isinstance(step, Gather):
                buffer = FillableBytes(bytes(step.stop - step.start)).getbuffer()
                yield buffer
                self._distribute(step, buffer)
            else:
                yield from self._item(step.piece).rest(Range(step.piece.start, step.piece.stop))

    def _distribute(self, step: Gather, buffer: memoryview) -> None:
        for piece in step.pieces:
            content = buffer[piece.start - step.start : piece.stop - step.start]
            item = self._item(piece)
            if is_large(item.extent):
                self._load.post(partial(self._load.head_arrived, item, item.begin(content)))
            else:
                item.whole(content)

    def _item(self, piece: Piece) -> StoredItem:
        return self.file.items[piece.item]


class Load:
    """Loads the items of some files: ``Load(runtime, planner, max_gap).load(files)``, once."""

    def __init__(self, runtime: Runtime, planner: LoadPlanner, max_gap: int | None) -> None:
        self._runtime = runtime
        self._planner = planner
        self._max_gap = max_gap
        self._events: SimpleQueue[_Event] = SimpleQueue()
        self._ready: deque[_Job] = deque()
        self._waiting: defaultdict[StoredItem, list[_Job]] = defaultdict(list)  # for the item's head
        self._memory: dict[StoredItem, int] = {}  # bytes that are reserved for an item
        self._in_flight = 0
        self._taken = 0

    def load(self, files: Sequence[StoredFile]) -> None:
        """Load all items.

        Raises:
            S3Exception: an error occurred accessing S3, or a file differs from its description in ``.metadata``.
            ValueError: an item does not fit its target.
        """
        for file in files:
            self._plan(file)
        try:
            with FetchGroup[_Job](self._runtime.lane(), self._runtime.caller) as group:
                while self._ready or self._in_flight:
                    while jobs := self._admitted():
                        for job in jobs:
                            group.submit(job)
                    self._events.get()()
            self._verify(files)
        finally:
            self._runtime.budget.give_back(self._taken)

    def _verify(self, files: Sequence[StoredFile]) -> None:
        lane, caller = self._runtime.lane(), self._runtime.caller
        for verified in [lane.submit(partial(file.loaded.verify, caller)) for file in files]:
            verified.result()

    def post(self, event: _Event) -> None:
        """Have the thread that loads call ``event``."""
        self._events.put(event)

    def head_arrived(self, item: StoredItem, memory: int) -> None:
        """Request what is needed of the rest of a large item, whose head has arrived."""
        self._reserve(item, memory)
        for job in reversed(self._waiting.pop(item, [])):
            request = job.request
            if len(request.pieces) > 1 or item.needs(Range(request.start, request.stop)):
                self._ready.appendleft(job)  # first, since the memory of its item is reserved already
            else:
                self._count(job)

    def request_done(self, job: _Job, fetch: RangeFetch) -> None:
        """Take note that all bytes of a request have arrived."""
        self._in_flight -= 1
        job.file.loaded.add(fetch)
        self._count(job)

    def _plan(self, file: StoredFile) -> None:
        for item in file.items:
            if not item.left:
                item.prepare(self._planner)
                item.finish(self._planner)
        file.forget_empty()
        requests = list(requests_for(file.extents, self._runtime.config.part_size, self._max_gap))
        if len(requests) > 1:
            prepare_verification(file.version, self._runtime, whole=file.is_wanted_whole)
        for request in requests:
            job = _Job(self, file, request)
            first = file.items[request.pieces[0].item]
            (self._waiting[first] if request.start > first.extent.start else self._ready).append(job)

    def _admitted(self) -> list[_Job]:
        """The next requests for which there is memory.

        Not too many, so that the first ones are sent soon. But not one at a time: finding the tensors of one request
        takes fifty times as long while another one is being received.
        """
        admitted: list[_Job] = []
        items = 0
        while self._ready and items < _ITEMS_AT_ONCE and self._has_room(self._ready[0]):
            self._in_flight += 1
            admitted.append(self._ready.popleft())
            items += len(admitted[-1].request.pieces)
        return admitted

    def _has_room(self, job: _Job) -> bool:
        """Reserve the memory for the items that begin in a request, if there is enough."""
        if job.memory is None:
            job.memory = 0
            for item in job.beginning:
                self._memory[item] = item.prepare(self._planner)
                job.memory += self._memory[item]
        if not self._runtime.budget.try_take(job.memory):
            if self._in_flight:
                return False
            self._runtime.budget.take(job.memory)
        self._taken += job.memory
        return True

    def _count(self, job: _Job) -> None:
        """Count the bytes of a request as received, and finish the items that are complete."""
        for piece in job.request.pieces:
            item = job.file.items[piece.item]
            item.left -= piece.stop - piece.start
            if not item.left:
                item.finish(self._planner)
                self._give_back(self._memory.pop(item, 0))

    def _reserve(self, item: StoredItem, memory: int) -> None:
        more = memory - self._memory.get(item, 0)
        self._memory[item] = memory
        self._runtime.budget.take(more)
        self._taken += more

    def _give_back(self, memory: int) -> None:
        self._taken -= memory
        self._runtime.budget.give_back(memory)


def _raise(error: BaseException) -> None:
    raise error
