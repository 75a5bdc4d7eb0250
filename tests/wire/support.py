"""What the tests of the wire share: callers and clients that do not wait between attempts, and their keys."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from s3torchconnector import S3ClientConfig
from s3torchconnector._s3client import S3Client
from s3torchconnector._wire import Caller, operations, read_document
from s3torchconnector._wire._retry import RetryPolicy, RetryQuota, RetryRule
from tests.servers.http_messages import ReceivedRequest
from tests.servers.scripted import Reply

REGION = "us-east-1"
ACCESS_KEY = "AKIAFIRSTKEY"
SECRET = "first-secret-of-the-test"
TOKEN = "first-token-of-the-test"

Handler = Callable[[ReceivedRequest], Reply]


def fast_rule(attempts: int) -> RetryRule:
    """The usual rule with backoffs a thousand times shorter."""
    return RetryRule(RetryPolicy(attempts, first_backoff=0.0001, longest_backoff=0.01), RetryQuota())


@contextlib.contextmanager
def open_caller(endpoint: str | None, config: S3ClientConfig | None = None) -> Iterator[Caller]:
    """A caller with three attempts, unless ``config`` says otherwise."""
    config = config or S3ClientConfig(max_attempts=3)
    with contextlib.closing(Caller(REGION, endpoint, config, "test/1", fast_rule(config.max_attempts))) as caller:
        yield caller


@contextlib.contextmanager
def open_client(endpoint: str | None, config: S3ClientConfig | None = None) -> Iterator[S3Client]:
    """A client on such a caller."""
    config = config or S3ClientConfig(max_attempts=3)
    with S3Client(REGION, endpoint=endpoint, s3client_config=config) as client:
        caller = Caller(REGION, endpoint, config, client.user_agent, fast_rule(config.max_attempts))
        client._runtime().caller = caller
        yield client


def get(caller: Caller, key: str = "k") -> bytes:
    """GetObject of ``s3://b/key``, whole."""
    return caller.call(operations.get_object("b", key), read_document)


def in_turn(*answers: Reply) -> Handler:
    """A handler that sends these in order, and the last one from then on."""
    left = list(answers)
    return lambda request: left.pop(0) if len(left) > 1 else left[0]
