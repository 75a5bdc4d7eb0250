"""Where a listing goes on after each page, and that it comes to an end. Pure.

Nothing but the server says where that is. One that says a place again where it has been would be asked for ever; most
do so at once, others go round in a circle.
"""

from __future__ import annotations

from s3torchconnector._errors import S3ProtocolError


class Continuation:
    """The places (tokens, markers) that one listing has gone on from, in constant memory (Brent's algorithm).

    Each place is compared with the last one, and with one that is renewed after 1, 2, 4, 8, ... pages: a circle is
    noticed at the latest when three times as many pages have come as there are up to its end.
    """

    def __init__(self) -> None:
        self._last: object = None
        self._earlier: object = None
        self._pages = 0
        self._renewal = 1

    def check(self, place: object) -> None:
        """Hold what a page says to what earlier ones said; None at the end of the listing.

        Raises:
            S3ProtocolError: going on from there would never end.
        """
        if place is not None and place in (self._last, self._earlier):
            raise S3ProtocolError(
                "the server goes on with a token that it went on with before: the listing would not end. Is the "
                "endpoint an S3 server?"
            )

    def advance(self, place: object) -> None:
        """Go on from there.

        Raises:
            S3ProtocolError: see ``check``.
        """
        self.check(place)
        self._last = place
        self._pages += 1
        if self._pages == self._renewal:
            self._earlier = place
            self._renewal *= 2
