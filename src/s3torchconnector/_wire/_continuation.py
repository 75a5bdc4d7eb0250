"""Makes sure that a listing ends. Pure.

Each page says where the next one starts (a token or a marker). A listing would never end if the server repeated such a
place: most broken servers do so at once, others go round in a cycle.
"""

from __future__ import annotations

from s3torchconnector._errors import S3ProtocolError


class Continuation:
    """Finds a cycle in the places from which a listing continues, in constant memory (Brent's algorithm).

    Each place is compared with the previous one, and with one that is replaced after 1, 2, 4, 8, ... pages. A cycle is
    found after at most three times as many pages as there are up to its end.
    """

    def __init__(self) -> None:
        self._last: object = None
        self._earlier: object = None
        self._pages = 0
        self._renewal = 1

    def check(self, place: object) -> None:
        """Compare the place that a page names with earlier ones; None at the end of the listing.

        Raises:
            S3ProtocolError: the place was named before, so the listing would never end.
        """
        if place is not None and place in (self._last, self._earlier):
            raise S3ProtocolError(
                "the server repeats a continuation token, so the listing would not end. Is the endpoint an S3 server?"
            )

    def advance(self, place: object) -> None:
        """Continue from this place.

        Raises:
            S3ProtocolError: see ``check``.
        """
        self.check(place)
        self._last = place
        self._pages += 1
        if self._pages == self._renewal:
            self._earlier = place
            self._renewal *= 2
