"""One attempt of a request: what it sends, its address and route, and who signs it."""

from typing import NamedTuple

from s3torchconnector._identity import Endpoint
from s3torchconnector._wire._authenticator import Identity
from s3torchconnector._wire._dialer import Route
from s3torchconnector._wire._operations import Request


class Attempt(NamedTuple):
    """One attempt. Its ``number`` counts from 1; a request that is sent again on another connection keeps it."""

    request: Request
    endpoint: Endpoint
    route: Route
    identity: Identity
    number: int = 1
