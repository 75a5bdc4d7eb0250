"""Real programs whose every request waits until the test has it carried out, so that a test chooses their order.

An actor is a function on its own thread, with its own server in front of the one bucket that all share. When all actors
wait (for a response) or have ended, the test chooses what happens next: a request is carried out and answered; or its
connection is closed without a response, and then it may still be carried out, at any later time or never, as the
client's retry goes on (``detach``, as often as a scenario says). ``explore`` tries everything: it runs the actors again
and again, each time with other choices, and leaves out what leads to a state that was seen.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from s3torchconnector import S3ClientConfig
from tests.servers.http_messages import ReceivedRequest
from tests.servers.memory_s3 import MemoryS3, Stored
from tests.servers.scripted import Close, ScriptedServer, Step

Actor = Callable[[str], Any]
"""Called with its endpoint."""
CONFIG = S3ClientConfig(hedge=False, max_connections=1)
"""Of all actors: one request at a time, and none twice because its turn comes late."""


@dataclass
class Waiting:
    """A request that an actor waits for."""

    request: ReceivedRequest
    answer: bytes | Sequence[Step] = b""
    answered: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Choice:
    """What happens next: ``deliver`` or ``detach`` an actor's request, or ``carry out`` one that was detached."""

    what: str
    actor: str
    request: str


@dataclass
class Run:
    """One run, with all that a check of it may want to know.

    Attributes:
        results: what an actor returned, or raised.
        history: the requests and responses of each actor, in words that are the same in all runs.
        commits: each time an object that matters was replaced: by whom, and whose it was before.
        choices: what happened, in order.
    """

    s3: MemoryS3
    results: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    commits: list[tuple[str, str]] = field(default_factory=list)
    detached: list[tuple[str, ReceivedRequest]] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)

    def owner(self, key: str) -> str:
        """The actor that stored the current object."""
        there = self.s3.objects.get(key)
        return "nobody" if there is None else there.owner

    def told(self, request: ReceivedRequest) -> str:
        """The stored object according to a response."""
        if key := _key(request):
            return self.owner(key)
        prefix = request.query.get("prefix", "")
        return " ".join(
            sorted(f"{_kind(key)} of {self.owner(key)}" for key in self.s3.objects if key.startswith(prefix))
        )

    def state(self) -> Any:
        """All that decides what can happen from here on."""
        there = tuple(sorted((_kind(key), each.owner) for key, each in self.s3.objects.items()))
        told = tuple((actor, tuple(seen)) for actor, seen in sorted(self.history.items()))
        ended = tuple(sorted((actor, type(result).__name__) for actor, result in self.results.items()))
        return there, told, ended, tuple(sorted((actor, _name(request)) for actor, request in self.detached))


class World:
    """Servers for actors, which last for any number of runs.

    Args:
        commit: the key that commits, whose changes of hands are noted, and whose PUTs may be detached.
    """

    def __init__(self, names: Sequence[str], commit: str) -> None:
        self._names = names
        self._commit = commit
        self._changed = threading.Condition()
        self._waiting: dict[str, list[Waiting]] = {}
        self._running: set[str] = set()
        self.endpoints: dict[str, str] = {}

    @contextmanager
    def open(self) -> Iterator[World]:
        with ExitStack() as stack:
            for name in self._names:
                server = stack.enter_context(ScriptedServer(handler=partial(self._arrive, name)))
                self.endpoints[name] = server.endpoint
            yield self

    def run(
        self, s3: MemoryS3, actors: dict[str, Actor], detach: int, choose: Callable[[Run, list[Choice]], Choice | None]
    ) -> Run:
        """Run all actors to their end. ``choose`` says what happens next; None: whatever, nobody looks any more."""
        run = Run(s3, history={name: [] for name in actors})
        self._waiting = {name: [] for name in actors}
        self._running = set(actors)
        threads = [threading.Thread(target=self._act, args=(run, name, actor)) for name, actor in actors.items()]
        for thread in threads:
            thread.start()
        looking, failure = True, None
        while options := self._options(run, detach if looking else 0):
            choice: Choice | None = next((each for each in options if _is_new_data(each)), None)
            try:
                choice = choice or (choose(run, options) if looking else options[0])
            except AssertionError as error:  # of the check: the actors come to their end all the same
                failure = error
            looking = choice is not None
            self._carry_out(run, choice or options[0])
        for thread in threads:
            thread.join()
        if failure is not None:
            raise failure
        return run

    def _act(self, run: Run, name: str, actor: Actor) -> None:
        try:
            result = actor(self.endpoints[name])
        except Exception as error:
            result = error
        with self._changed:
            run.results[name] = result
            self._running.discard(name)
            self._changed.notify_all()

    def _arrive(self, name: str, request: ReceivedRequest) -> bytes | Sequence[Step]:
        waiting = Waiting(request)
        with self._changed:
            self._waiting[name].append(waiting)
            self._running.discard(name)
            self._changed.notify_all()
        assert waiting.answered.wait(60)
        return waiting.answer

    def _options(self, run: Run, detach: int) -> list[Choice]:
        with self._changed:
            assert self._changed.wait_for(lambda: not self._running, 60), f"{self._running} neither ask nor end"
            found = []
            for name, waiting in self._waiting.items():
                if waiting:
                    request = waiting[0].request
                    found.append(Choice("deliver", name, _name(request)))
                    lost = sum(choice.what == "detach" for choice in run.choices)
                    if self._commits(request) and lost < detach:
                        found.append(Choice("detach", name, _name(request)))
            return found + [Choice("carry out", name, _name(request)) for name, request in run.detached[:1]]

    def _commits(self, request: ReceivedRequest) -> bool:
        return request.method == "PUT" and _key(request) == self._commit

    def _carry_out(self, run: Run, choice: Choice) -> None:
        run.choices.append(choice)
        if choice.what == "carry out":
            self._answer(run, *run.detached.pop(0))
            return
        waiting = self._waiting[choice.actor].pop(0)
        if choice.what == "detach":
            run.detached.append((choice.actor, waiting.request))
            run.history[choice.actor].append((choice.request, "lost", ""))
            waiting.answer = [Close()]
        else:
            waiting.answer = self._answer(run, choice.actor, waiting.request)
            status = waiting.answer.split(b" ", 2)[1].decode()
            run.history[choice.actor].append((choice.request, status, run.told(waiting.request)))
        with self._changed:
            if not self._waiting[choice.actor]:
                self._running.add(choice.actor)
        waiting.answered.set()

    def _answer(self, run: Run, actor: str, request: ReceivedRequest) -> bytes:
        before, owner = run.s3.objects.get(self._commit), run.owner(self._commit)
        answer = run.s3.answer(request, actor)
        if run.s3.objects.get(self._commit) is not before:
            run.commits.append((run.owner(self._commit), owner))
        return answer


def explore(
    world: World,
    make: Callable[[], tuple[MemoryS3, dict[str, Actor]]],
    detach: int,
    check: Callable[[Run], None],
) -> tuple[int, int]:
    """Try every order; ``check`` looks at each state. Returns how many runs and states there were."""
    seen: set[Any] = set()
    beginnings: list[list[Choice]] = [[]]
    runs = 0
    while beginnings:
        beginning = beginnings.pop()
        runs += 1

        def choose(run: Run, options: list[Choice], beginning: list[Choice] = beginning) -> Choice | None:
            check(run)
            if len(run.choices) < len(beginning):
                return beginning[len(run.choices)]
            state = run.state()
            if state in seen:
                return None
            seen.add(state)
            beginnings.extend([*run.choices, other] for other in options[1:])
            return options[0]

        s3, actors = make()
        check(world.run(s3, actors, detach, choose))
    return runs, len(seen)


def stored(data: bytes, owner: str, time: int = 1_780_000_000) -> Stored:
    """An object that is there from the beginning."""
    return Stored(data, {}, time, owner)


def _key(request: ReceivedRequest) -> str:
    return request.path.lstrip("/").partition("/")[2]


def _kind(key: str) -> str:
    """A key without what is new in each run."""
    return "/".join("token" if len(part) == 16 and "." not in part else part for part in key.split("/"))


def _is_new_data(choice: Choice) -> bool:
    """Whether it delivers data that gets a name of its own: when that happens concerns nobody else."""
    method, _, key = choice.request.partition(" ")
    return choice.what == "deliver" and method == "PUT" and key.endswith((".distcp", ".pt"))


def _name(request: ReceivedRequest) -> str:
    return f"{request.method} {_kind(_key(request)) or request.query.get('prefix', '')}"
