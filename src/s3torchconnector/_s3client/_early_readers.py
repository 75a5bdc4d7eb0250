"""Readers that look-ahead has opened for what the program is about to open by itself.

Subclasses of the datasets, and programs after an error, open objects by ``get_object``, which cannot know that they are
already being fetched. Code that fetches early offers a reader, and ``get_object`` takes it when the same object is
opened in the same way.
"""

from __future__ import annotations

import threading
from typing import Any
from weakref import WeakSet


class Offer:
    """One reader that may be taken, once. It can be taken as long as the code that made the offer keeps it.

    Args:
        bucket, key: the object.
        constructor: the ``reader_constructor`` that the reader is of.
        reader: a reader that has not been read from.
    """

    def __init__(self, bucket: str, key: str, constructor: object, reader: Any) -> None:
        self.place = (bucket, key)
        self.constructor = constructor
        self.reader = reader
        self.taken = False


class EarlyReaders:
    """The offers to the users of one client."""

    def __init__(self) -> None:
        self._offers: WeakSet[Offer] = WeakSet()
        self._lock = threading.Lock()
        self._were_any = False

    def offer(self, offer: Offer) -> None:
        """Have the next ``take`` of this object return its reader."""
        with self._lock:
            self._were_any = True
            self._offers.add(offer)

    def take(self, bucket: str, key: str, constructor: object) -> Any:
        """A reader of the object, from now on the caller's; None if there is none."""
        if not self._were_any:  # asked for each object, and usually so
            return None
        with self._lock:
            for offer in self._offers:
                if offer.place == (bucket, key) and offer.constructor is constructor:
                    self._offers.remove(offer)
                    offer.taken = True
                    return offer.reader
        return None

    def withdraw(self, offer: Offer) -> bool:
        """Withdraw it. Returns whether it had not been taken."""
        with self._lock:
            self._offers.discard(offer)
            return not offer.taken
