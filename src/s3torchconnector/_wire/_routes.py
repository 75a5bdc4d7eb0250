"""The ways to the endpoints that a client uses, each with the throttle of its requests."""

from __future__ import annotations

from s3torchconnector._identity import Endpoint
from s3torchconnector._wire._dialer import Route
from s3torchconnector._wire._proxy import proxy_for
from s3torchconnector._wire._throttle import Throttle
from s3torchconnector._wire._tolerance import Tolerance


class Routes:
    """Those of one client.

    Args:
        most: how many requests the client may have in flight.

    Attributes:
        tolerance: which refusals throttle nothing.
    """

    def __init__(self, most: int) -> None:
        self.tolerance = Tolerance(most)
        self._most = most
        self._known: dict[tuple[str, str, int], tuple[Route, Throttle]] = {}

    def __str__(self) -> str:
        """Those that are throttled now."""
        return "".join(f" | {route}: {throttle!r}" for route, throttle in list(self._known.values()) if throttle.active)

    def to(self, endpoint: Endpoint) -> tuple[Route, Throttle]:
        """The way to an endpoint, and its throttle."""
        key = (endpoint.scheme, endpoint.host, endpoint.port)
        found = self._known.get(key)
        if found is None:  # another thread may find out the same
            found = Route(*key, proxy_for(*key)), Throttle(self._most, tolerance=self.tolerance)
            found = self._known.setdefault(key, found)
        return found
