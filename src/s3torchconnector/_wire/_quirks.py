"""How the servers of a client's buckets differ from S3, as far as the client has found out.

Each difference costs the request that shows it, once for each bucket, and is logged once.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from enum import Enum

from s3torchconnector._uri import display_uri

_log = logging.getLogger(__name__)


class Quirk(Enum):
    """A difference; its value says for the log what it is, and what follows."""

    EQUAL_PARTS = "the server takes only multipart uploads whose parts have one length: later uploads have such parts"
    NO_HEAD = "the server forbids HEAD requests: the first byte of an object is asked for, to learn of the object"
    NO_DELETE_OBJECTS = "the server does not delete many objects by one request: they are deleted one by one"
    NO_SUFFIX_RANGES = "the server sends an object's first bytes if asked for its last: its size is asked for first"


class Quirks:
    """The differences that one client knows of. Any thread may add one, without a lock: a lost one costs a request."""

    def __init__(self, everywhere: Collection[Quirk] = ()) -> None:
        self._everywhere = everywhere  # by the configuration
        self._found: set[tuple[str, Quirk]] = set()

    def has(self, bucket: str, quirk: Quirk) -> bool:
        return quirk in self._everywhere or (bucket, quirk) in self._found

    def note(self, bucket: str, quirk: Quirk) -> None:
        """The server of ``bucket`` has shown this."""
        if (bucket, quirk) not in self._found:
            self._found.add((bucket, quirk))
            _log.info("%s: %s", display_uri(bucket), quirk.value)
