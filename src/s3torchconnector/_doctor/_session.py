"""The target of the checks, and the results of earlier checks."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._doctor._findings import one_line
from s3torchconnector._doctor._scratch import Scratch
from s3torchconnector._identity import Endpoint, FoundCredentials
from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo
from s3torchconnector._uri import is_arn
from s3torchconnector._wire import Caller, Request
from s3torchconnector._wire import _probe as probe

_SHORTEST_SECRET = 4  # characters; shorter ones, of servers for tests, are found in any text
_PARTITIONS = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}  # by the beginning of a region


@dataclass(frozen=True)
class Target:
    """What to examine, and how.

    Attributes:
        bucket, prefix: where the job reads or writes.
        region, endpoint, config: the job's, as for ``S3Client``; time limits are the doctor's own.
        write: whether to try what writes, below a scratch prefix.
        seconds: how long to measure; 0 leaves it out.
        workers: data workers of each rank.
        ranks: training processes on this node.
        step_seconds: how long to wait for a connection, for a response to begin, and for the address of a name.
        total_seconds: after which no check begins that sends requests, but for the measurement.
    """

    bucket: str
    prefix: str = ""
    region: str = "us-east-1"
    endpoint: str | None = None
    config: S3ClientConfig = field(default_factory=S3ClientConfig)
    write: bool = False
    seconds: float = 5.0
    workers: int = 0
    ranks: int = 1
    step_seconds: float = 5.0
    total_seconds: float = 45.0


class TimeIsUp(Exception):
    """The requests of the checks have taken too long together."""


class Session:
    """One examination. Not for several threads.

    Attributes:
        step: seconds that a step may take.
        config: the target's, with the doctor's time limits.
        credentials: who signs; None if nobody does, or if nobody was found.
        endpoint, route: where requests go, once that is known.
        handshake: what opening a connection through a proxy has returned, or its error.
        reply: the latest response to a listing of the prefix.
        objects: those of the prefix that can be read, as far as one page tells.
        scratch: what has been written.
    """

    credentials: FoundCredentials | None = None
    endpoint: Endpoint
    route: probe.Route
    handshake: probe.Handshake | Exception | None = None
    reply: probe.Reply

    def __init__(self, target: Target) -> None:
        self.target = target
        self.step = step = target.step_seconds
        # A second attempt, as a job has ten: one lost connection says nothing. No hedging: it hides a slow server.
        self.config = replace(
            target.config,
            max_attempts=2,
            connect_timeout=step,
            read_timeout=step,
            operation_timeout=2 * step,
            hedge=False,
        )
        self.objects: list[ObjectInfo] = []
        self.started = time.perf_counter()
        self.requests = 0
        self.scratch = Scratch(target.bucket, target.prefix)
        self._closing = ExitStack()
        self._secrets: dict[str, str] = {}

    def close(self) -> None:
        """Close the client. What was written is not removed by this."""
        self._closing.close()

    @cached_property
    def client(self) -> S3Client:
        """The client of all checks that need credentials."""
        return self._open(self.config)

    @cached_property
    def anonymous_client(self) -> S3Client:
        """A client that signs nothing, for what can be learned without credentials."""
        return self._open(replace(self.config, unsigned=True, credentials=None, requester_pays=False))

    def _open(self, config: S3ClientConfig) -> S3Client:
        target = self.target
        return self._closing.enter_context(S3Client(target.region, endpoint=target.endpoint, s3client_config=config))

    @property
    def caller(self) -> Caller:
        """What sends the requests: with credentials if there are any."""
        signs = self.credentials is not None or self.config.unsigned
        return (self.client if signs else self.anonymous_client)._runtime().caller

    def ask(self, request: Request) -> probe.Reply:
        """Send a request, see ``_probe.ask``.

        Raises:
            TimeIsUp: the requests before have used up the time.
        """
        if time.perf_counter() > self.started + self.target.total_seconds:
            raise TimeIsUp
        self.requests += 1
        return probe.ask(self.caller, request, 2 * self.step)

    def hide(self, credentials: FoundCredentials) -> None:
        """Hide these in all output, except the ends of the access key."""
        access_key, secret_key, token = credentials.latest
        shown = {access_key: shortened(access_key), secret_key: "...", token or "": "..."}
        self._secrets = {secret: instead for secret, instead in shown.items() if len(secret) >= _SHORTEST_SECRET}

    def printable(self, text: str) -> str:
        """Text as one line, without the secrets of the credentials."""
        for secret, instead in self._secrets.items():
            text = text.replace(secret, instead)
        return one_line(text)

    @property
    def source(self) -> str:
        """Where the credentials come from."""
        return self.credentials.source if self.credentials is not None else "nowhere"

    @property
    def bucket_arn(self) -> str:
        """The bucket, as a policy names it."""
        target = self.target
        partition = next((name for begin, name in _PARTITIONS.items() if target.region.startswith(begin)), "aws")
        return target.bucket if is_arn(target.bucket) else f"arn:{partition}:s3:::{target.bucket}"

    @property
    def objects_arn(self) -> str:
        """The objects below the prefix, as a policy names them."""
        folder = "/object" if is_arn(self.target.bucket) else ""
        return f"{self.bucket_arn}{folder}/{self.target.prefix}*"

    @property
    def address(self) -> str:
        """Host and port of the endpoint."""
        return f"{self.endpoint.host}:{self.endpoint.port}"

    @property
    def options(self) -> str:
        """The options that lead to the same server, of AWS's command line and of ours."""
        config, target = self.config, self.target
        url = f" --endpoint-url {target.endpoint}" if target.endpoint else ""
        return f"--region {target.region}{url}" + (f" --profile {config.profile}" if config.profile else "")


def shortened(access_key: str) -> str:
    """An access key by its ends, by which its owner knows it."""
    if len(access_key) < 16:
        return f"{access_key[: min(3, len(access_key) // 3)]}..."
    return f"{access_key[:4]}...{access_key[-4:]}"


def set_in_environment(*names: str) -> str:
    """The first of these variables that is set, in upper or lower case; empty if none is."""
    spellings = [spelling for name in names for spelling in (name, name.lower())]
    return next((name for name in spellings if os.environ.get(name)), "")
