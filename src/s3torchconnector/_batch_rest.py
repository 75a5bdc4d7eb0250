"""The rest of a batch in which one sample failed: it is kept until the program asks for other samples.

A program that catches the error asks for the rest of the batch, or for all of it once more. What it gets then was
fetched before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from s3torchconnector._dataset_source import DatasetSource, is_whole_object
from s3torchconnector._early_samples import OpenedEarly, Sample
from s3torchconnector._s3client import Offer
from s3torchconnector.s3reader import S3Reader


class BatchRest:
    """Samples that were made before the error, and objects that were on their way.

    Args:
        source: the dataset's. Code that opens these objects with its client gets the readers.
        made: the samples, each with its index.
        opened: the objects.
    """

    def __init__(
        self, source: DatasetSource, made: Sequence[tuple[int, Any]], opened: Sequence[tuple[Sample, OpenedEarly]]
    ) -> None:
        self._source = source
        self._transform = source.transform
        self._client, constructor = source.client, source.reader_constructor
        self._samples: defaultdict[int, list[Any]] = defaultdict(list)
        for index, sample in made:
            self._samples[index].append(sample)
        self._offers: list[tuple[S3Reader, Offer]] = []
        for chosen, reader in opened:
            item = chosen.item
            if item is not None and isinstance(reader, S3Reader) and is_whole_object(item):
                self._offers.append((reader, Offer(item.bucket, item.key, constructor, reader)))
                self._client._early.offer(self._offers[-1][1])
            else:
                reader.close()

    def take(self, index: int) -> list[Any]:
        """One of the samples with this index, as a list, which is empty if there is none. It is handed out once."""
        samples = self._samples.get(index) if self._source.transform is self._transform else None
        try:
            return [samples.pop()] if samples else []
        except IndexError:  # another thread was faster
            return []

    def close(self) -> None:
        """Cancel the readers that were not taken."""
        self._samples.clear()
        for reader, offer in self._offers:
            if self._client._early.withdraw(offer):
                reader.close()
