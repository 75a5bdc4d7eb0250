"""Samples that methods of the program make: overrides, in subclasses of the datasets, of what opens an object.

Such a method opens its object by ``get_object``, which cannot know that it is on its way already. Look-ahead therefore
offers the reader there before it calls the method. Nothing is fetched early before a method has taken a first reader,
and never again after one has left a reader, which was then fetched for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from s3torchconnector._dataset_source import DatasetSource
from s3torchconnector._early_samples import Foreign, OpenedEarly
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._s3client import Offer, S3Client
from s3torchconnector._samples._items import name_sample
from s3torchconnector.s3reader import S3Reader


class Uptake:
    """Whether a method of the program opens the objects that were opened for it; None before that is known."""

    def __init__(self) -> None:
        self.taken: bool | None = None

    def is_certain(self) -> bool:
        """Whether objects are fetched early."""
        return self.taken is True

    def note(self, taken: bool) -> None:
        """An object that was opened for the method was taken, or left."""
        self.taken = taken and self.taken is not False


class CalledFor:
    """One call of a method of the program, and the object that it will probably open; see ``Sample``.

    Args:
        source: the dataset's.
        item: the object; None if it is not known.
        call: makes the sample.
        uptake: what is known of the method.
    """

    def __init__(
        self, source: DatasetSource, item: S3BucketKeyData | None, call: Callable[[], Any], uptake: Uptake
    ) -> None:
        self.item = item
        self._source = source
        self._call = call
        self._uptake = uptake

    def open(self) -> OpenedEarly:
        """Open the object, if the call may take it. No request is made."""
        if self.item is None or self._uptake.taken is False or not isinstance(self._source.client, S3Client):
            return Foreign(None)
        reader: object = self._source.open_for_call(self.item)
        return reader if isinstance(reader, S3Reader) else Foreign(reader)

    def transform(self, reader: OpenedEarly) -> Any:
        """Call the method, which may take ``reader``.

        Raises:
            RuntimeError: it raised ``StopIteration``, which would say that there are no more samples.
        """
        opened = reader.file if isinstance(reader, Foreign) else reader
        try:
            return self._call() if opened is None or self.item is None else self._offered(self.item, opened, reader)
        except StopIteration as error:
            raise RuntimeError("the method raised StopIteration") from error

    def _offered(self, item: S3BucketKeyData, opened: Any, reader: OpenedEarly) -> Any:
        early = self._source.client._early
        offer = Offer(item.bucket, item.key, self._source.reader_constructor, opened)
        early.offer(offer)
        try:
            sample = self._call()
        except BaseException as error:
            if early.withdraw(offer):
                reader.close()
            else:
                name_sample(error, item)
            raise
        left = early.withdraw(offer)
        self._uptake.note(not left)
        if left:
            reader.close()
        return sample
