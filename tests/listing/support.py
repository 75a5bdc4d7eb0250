"""A server of pages, for the tests of listing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

from tests.servers.http_messages import ReceivedRequest, response, s3_error


def document(keys: list[str], token: str | None) -> bytes:
    """A page as S3 sends it with ``encoding-type=url``."""
    contents = "".join(
        f"<Contents><Key>{quote(key)}</Key><LastModified>2024-02-29T12:00:00.000Z</LastModified>"
        f"<ETag>&quot;e&quot;</ETag><Size>{number}</Size><StorageClass>GLACIER</StorageClass></Contents>"
        for number, key in enumerate(keys)
    )
    more = f"<NextContinuationToken>{escape(token)}</NextContinuationToken>" if token else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<EncodingType>url</EncodingType><IsTruncated>{'true' if token else 'false'}</IsTruncated>{more}{contents}"
        "</ListBucketResult>"
    ).encode()


class Pages:
    """Responds to listings of ``keys``, page by page, in their order, as the handler of a ``ScriptedServer``.

    Args:
        keys: all keys.
        knows_start_after: or ignores it.
        order: what ``keys`` are sorted by.
        empty: places in ``keys`` before which there is a page without keys.
        most: requests after which the listing is refused, since it seems not to end.
    """

    SIZE = 50

    def __init__(
        self,
        keys: list[str],
        *,
        knows_start_after: bool = True,
        order: Callable[[str], Any] = str,
        empty: Any = (),
        most: int = 200,
    ) -> None:
        self.keys = keys
        self._knows_start_after = knows_start_after
        self._order = order
        self._empty = empty
        self._left = most

    def __call__(self, request: ReceivedRequest) -> bytes:
        self._left -= 1
        if self._left < 0:
            return s3_error(403, "TooManyRequests")
        place, passed = self._place(request.query)
        if place in self._empty and not passed:
            return response(200, document([], f"{place}:passed"))
        stop = place + self.SIZE
        return response(200, document(self.keys[place:stop], f"{stop}:" if stop < len(self.keys) else None))

    def _place(self, query: dict[str, str]) -> tuple[int, bool]:
        if "continuation-token" in query:
            assert "start-after" not in query
            place, _, passed = query["continuation-token"].partition(":")
            return int(place), bool(passed)
        after = query.get("start-after", "") if self._knows_start_after else ""
        return bisect_right(self.keys, self._order(after), key=self._order) if after else 0, False


NUMBERED = [f"{number:06d}" for number in range(1000)]
