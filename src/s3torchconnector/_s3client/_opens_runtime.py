"""What a client opens in each process at first use, and how it is left in another one."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._late_imports import no_fork
from s3torchconnector._s3client._early_readers import EarlyReaders
from s3torchconnector._s3client._lifetime import close_when_dropped, watch
from s3torchconnector._transfer import Runtime
from s3torchconnector._user_agent import UserAgent
from s3torchconnector._wire import Figures, counts

if TYPE_CHECKING:
    from s3torchconnector._metrics import Metrics
else:  # for typing.get_type_hints; programs that only read need not wait for the import
    Metrics = Any

_DEBUG_LOGS = "S3_TORCH_CONNECTOR_DEBUG_LOGS"  # 1.5.0's, see _debug_logs
_COUNTED_IN = "counted_in"  # in the state that goes to a process that is being spawned


class _OpensRuntime:
    """The part of ``S3Client`` that holds its configuration, and the runtime of this process."""

    _region: str
    _endpoint: str | None
    _user_agent: UserAgent | str | None
    _config: S3ClientConfig

    @property
    def user_agent(self) -> str:
        """The text of the User-Agent header."""
        given = self._user_agent
        if isinstance(given, UserAgent):
            return given.prefix
        own = UserAgent.get_default_prefix()
        return f"{given} {own}" if given else own

    @property
    def user_agent_prefix(self) -> str:
        """The same, by its name in 1.5.0."""
        return self.user_agent

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._opened: Runtime | None = None
        self._early = EarlyReaders()
        self._figures = Figures()
        watch(self)

    def _runtime(self) -> Runtime:
        """Return the threads, connections and memory of this process. Made at the first call, dropped by ``close``."""
        runtime = self._opened
        if runtime is None:
            _follow_debug_variables()
            with self._lock:
                runtime = self._opened
                if runtime is None:
                    runtime = Runtime(self._region, self._endpoint, self._config, self.user_agent, self._figures)
                    close_when_dropped(self, runtime)
                    self._opened = runtime
        return runtime

    def metrics(self) -> Metrics:
        """What this client has asked of S3 in this process, and what came of it; see ``s3torchconnector.metrics``.

        Connections and memory are those of this client and of the clients that share them. This waits for nothing.
        """
        metrics, runtime = self._figures.metrics(), self._opened
        return metrics if runtime is None else runtime.add_gauges(metrics)

    def _close_idle(self) -> None:
        """Close the idle connections of this process, and keep none from now on."""
        runtime = self._opened
        if runtime is not None:
            runtime.close_idle()

    def _leave_to_parent(self) -> None:
        """In a forked child: drop what the parent has open."""
        runtime = self._opened
        self._start_afresh()
        if runtime is not None:
            runtime.forget()

    def __getstate__(self) -> dict[str, Any]:
        left = ("_lock", "_opened", "_early", "_figures")
        state = {name: value for name, value in self.__dict__.items() if name not in left}
        counted_in = counts.for_spawned_child()
        return state if counted_in is None else {**state, _COUNTED_IN: counted_in}

    def __setstate__(self, state: dict[str, Any]) -> None:
        counted_in = state.pop(_COUNTED_IN, None)
        if counted_in is not None:
            counts.count_in(counted_in)
        self.__dict__.update(state)
        self._start_afresh()


def _follow_debug_variables() -> None:
    if _DEBUG_LOGS in os.environ:
        with no_fork:
            from s3torchconnector._debug_logs import follow_environment  # here: few programs need it
        follow_environment()
