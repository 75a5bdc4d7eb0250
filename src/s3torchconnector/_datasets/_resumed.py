"""The state of an iterable dataset, which has no order of its own: how many objects were handed out, and the last one.

A prefix is listed from the last key on. If objects were named, those that were handed out are skipped without reading
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from s3torchconnector._early_samples import Handed
from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._listed_objects import ListedObjects
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._sharding import Place

_VERSION = 1


def state_of(before: Mapping[str, Any] | None, handed: Handed[Any] | None, place: Place) -> dict[str, Any]:
    """The state after the objects that were handed out, in a pass that began where ``before`` says; None means at the
    beginning.
    """
    count, last = (before["handed"], before["last"]) if before else (0, None)
    if handed is not None and handed.chosen is not None:
        count, last = count + handed.count, handed.chosen.item.key
    return {"version": _VERSION, "handed": count, "last": last, **place._asdict()}


def check(state: Mapping[str, Any], place: Place) -> Mapping[str, Any]:
    """The state, if it can be resumed here.

    Raises:
        S3ConfigurationError: it is not a state, or one of another number of ranks or workers.
    """
    try:
        version, handed, last = state["version"], state["handed"], state["last"]
        saved = Place(**{name: state[name] for name in Place._fields})
    except (KeyError, TypeError) as error:
        raise S3ConfigurationError(f"this is not a state of an S3IterableDataset ({error}): {state!r:.300}") from error
    if version != _VERSION or type(handed) is not int or handed < 0 or not isinstance(last, str | None):
        raise S3ConfigurationError(f"this is not a state of an S3IterableDataset: {state!r:.300}")
    if saved != place:
        raise S3ConfigurationError(
            f"the state was saved by {saved}, and is loaded by {place}: this dataset can only be resumed by as many "
            "ranks and workers. S3StreamingDataset can by any other number"
        )
    return state


def rest(objects: Iterable[S3BucketKeyData], state: Mapping[str, Any], place: Place) -> Iterator[S3BucketKeyData]:
    """The rest of the share of ``place``, one in so many of the objects, after the state."""
    stride, first = place.world_size * place.num_workers, place.rank + place.world_size * place.worker
    if isinstance(objects, ListedObjects) and state["last"] is not None:
        return islice(objects.after(state["last"]), stride - 1, None, stride)
    return islice(objects, first + state["handed"] * stride, None, stride)
