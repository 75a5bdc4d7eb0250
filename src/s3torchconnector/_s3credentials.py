"""``S3Credentials``: keys that a program gives to ``S3ClientConfig``, as a value or by a function."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from numbers import Real
from typing import Any

from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._sendable import flaw_of, name_of


@dataclass(frozen=True, repr=False)
class S3Credentials:
    """Keys of an AWS account or of another S3 server, for ``S3ClientConfig(credentials=...)``.

    The secret key and the session token never appear in a ``repr``, log line, error or ``debug_state``. But a pickle of
    this value, or of a configuration that has it, contains them, because spawned ``DataLoader`` workers get them that
    way. Treat such a pickle as a secret, or pass a function (see ``S3ClientConfig``), whose pickle contains only its
    name.

    Args:
        access_key: the access key ID.
        secret_key: the secret access key.
        session_token: the session token of temporary keys.
        expiry: when temporary keys end: a ``datetime`` with a time zone, as AWS STS returns it, or seconds since 1970
            (UTC). Keys from a function are renewed before that. None for keys that do not expire.

    Raises:
        S3ConfigurationError: (a ``ValueError``) a value that no request can carry. The text does not repeat it.

    Example:
        >>> from s3torchconnector import S3ClientConfig, S3Credentials
        >>> keys = S3Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
        >>> S3ClientConfig(credentials=keys).credentials
        S3Credentials(access_key='AKIAIOSFODNN7EXAMPLE', secret_key=..., session_token=None, expiry=None)
    """

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    expiry: datetime | float | None = None

    def __post_init__(self) -> None:
        for name, value in (("access_key", self.access_key), ("secret_key", self.secret_key)):
            if not isinstance(value, str) or not value:
                raise S3ConfigurationError(
                    f"invalid credentials: {name} must be a string that is not empty, not "
                    f"{'an empty one' if value == '' else type(value).__name__}"
                )
        if not isinstance(self.session_token, (str, type(None))):
            raise S3ConfigurationError(
                f"invalid credentials: session_token must be a string or None, not {type(self.session_token).__name__}"
            )
        for name in ("access_key", "secret_key", "session_token"):
            flaw = flaw_of(getattr(self, name) or "")
            if flaw:
                raise S3ConfigurationError(
                    f"invalid credentials: {name} contains {flaw}. Remove it (a value read from a file may end with a "
                    "line break)"
                )
        self._check_expiry()

    def _check_expiry(self) -> None:
        expiry: object = self.expiry
        if isinstance(expiry, datetime):
            if expiry.utcoffset() is None:
                raise S3ConfigurationError(
                    f"invalid credentials: expiry={expiry!r} has no time zone, so it is unknown when that is: give "
                    "datetime(..., tzinfo=timezone.utc)"
                )
        elif expiry is not None and (isinstance(expiry, bool) or not isinstance(expiry, Real) or expiry != expiry):
            raise S3ConfigurationError(
                f"invalid credentials: expiry must be a datetime, seconds since 1970, or None: expiry={expiry!r}"
            )

    @property
    def _ends(self) -> float | None:
        """``expiry`` in seconds since 1970."""
        return self.expiry.timestamp() if isinstance(self.expiry, datetime) else self.expiry

    def __repr__(self) -> str:
        token = "..." if self.session_token else None
        return (
            f"S3Credentials(access_key={self.access_key!r}, secret_key=..., session_token={token}, "
            f"expiry={self.expiry!r})"
        )


GivenCredentials = S3Credentials | Callable[[], S3Credentials]
"""What ``S3ClientConfig(credentials=...)`` takes."""


def refuse_unpicklable(given: Any) -> None:
    """Refuse a function that cannot be pickled, when a configuration with it is.

    Raises:
        S3ConfigurationError: (a ``ValueError``) ``pickle`` cannot.
    """
    if given is None or isinstance(given, S3Credentials):
        return
    try:
        pickle.dumps(given)
    except Exception as error:  # whatever its own __reduce__ raises
        if any(name.rpartition(".")[2] == "cloudpickle" for name in sys.modules):
            return  # which pickles more, and may be at work; otherwise pickle's own error follows
        raise S3ConfigurationError(
            f"a configuration with credentials={name_of(given)} cannot be pickled, as for a spawned DataLoader worker: "
            f"{error}. Give a function at the top level of a module, a functools.partial of one, or an object whose "
            "class has a __call__ and is at the top level"
        ) from error
