"""The attributes that datasets of 1.5.0 have, and that programs read and assign. The ``DatasetSource`` holds them."""

from __future__ import annotations

from typing import Any

_OF_CLIENT = ("region", "endpoint", "s3client_config")


class SourceAttribute:
    """``_client = SourceAttribute()`` in a dataset's class: what is assigned to it is the source's ``client``."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self._field = name.removeprefix("_")

    def __get__(self, dataset: Any, owner: type) -> Any:
        if dataset is None:
            return self
        attributes = vars(dataset)
        source = attributes.get("_source")
        if source is not None:
            return getattr(source, self._field)
        if self._name in attributes:
            return attributes[self._name]
        raise AttributeError(f"{type(dataset).__name__!r} object has no attribute {self._name!r} before its __init__")

    def __set__(self, dataset: Any, value: Any) -> None:
        source = vars(dataset).get("_source")
        if source is None:  # before the constructor, which will decide
            vars(dataset)[self._name] = value
            return
        new_client = self._field in _OF_CLIENT or (self._field == "client" and value is None)
        if self._field != "client" or value is not None:
            object.__setattr__(source, self._field, value)
        if new_client:
            source.renew_client()
