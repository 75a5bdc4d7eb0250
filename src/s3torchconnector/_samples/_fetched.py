"""Samples that are made of fetched bytes before a transform gets them.

Each is what ``look_ahead`` takes, and is fetched early as any object.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector.s3reader import S3Reader


class OpenPart(Protocol):
    """Opens what is read whole, and is part of a sample; ``again`` since the bytes were wrong."""

    def __call__(self, item: S3BucketKeyData, *, again: bool = False) -> S3Reader: ...


class FetchedSample(ABC):
    """A sample that is to be fetched."""

    @property
    @abstractmethod
    def file(self) -> Any:
        """What a transform gets, once. It is waited for.

        Raises:
            S3FormatError: the bytes are not what they should be.
            S3Exception: an error occurred accessing S3.
        """

    @abstractmethod
    def _start_early(self, likely_size: int | None) -> bool: ...

    @abstractmethod
    def _hand_out(self) -> int | None: ...

    @abstractmethod
    def close(self) -> None:
        """Cancel what is under way and free the memory."""


class RangeSample(FetchedSample):
    """A sample whose bytes all come from one reader.

    Args:
        item: which bytes.
        open_part: opens them.
    """

    def __init__(self, item: S3BucketKeyData, open_part: OpenPart) -> None:
        self._reader = open_part(item)

    def _start_early(self, likely_size: int | None) -> bool:
        return self._reader._start_early(likely_size)

    def _hand_out(self) -> int | None:
        return self._reader._hand_out()

    def close(self) -> None:
        self._reader.close()
