"""``S3CustomerKey``: the key of the program's own that objects are encrypted with (SSE-C).

https://docs.aws.amazon.com/AmazonS3/latest/userguide/ServerSideEncryptionCustomerKeys.html
It is in no ``repr``, log, error or pickle. A pickle only says where the key comes from.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from s3torchconnector._errors import S3ConfigurationError, S3Exception
from s3torchconnector._sendable import name_of

_SIZE = 32  # bytes, of AES-256
_ALGORITHM = "AES256"
_NEARBY = ("127.0.0.1", "::1", "[::1]", "localhost")


class S3CustomerKey:
    """A key with which S3 encrypts what is stored, and which it needs again to read it (SSE-C).

    ``S3ClientConfig(customer_key=...)`` has it sent with everything that a client stores, reads and copies. So one
    client reads objects of one key; S3 refuses it for objects that are encrypted in another way. S3 does not keep the
    key: if you lose it, you lose the objects. It is only sent by ``https://``, or to servers on this machine.

    The key never appears in a ``repr``, log line, error, ``debug_state`` or pickle. Spawned ``DataLoader`` workers get
    a pickle, and look the key up themselves: by ``from_env``, ``from_file`` or a function. A client whose key was given
    as ``bytes`` cannot be pickled.

    Args:
        key: 32 bytes; or a function without arguments that returns them, called at the first request of a process.
            (To be pickled, it must be at the top level of a module, or a ``functools.partial`` of such a function; its
            arguments are then in the pickle.)

    Raises:
        S3ConfigurationError: (a ``ValueError``) ``key`` has another length. For a function, an environment variable or
            a file, the first request says so.

    Example:
        >>> from s3torchconnector import S3ClientConfig, S3CustomerKey
        >>> S3ClientConfig(customer_key=S3CustomerKey.from_env("CHECKPOINT_KEY")).customer_key
        S3CustomerKey.from_env('CHECKPOINT_KEY')
    """

    __slots__ = ("_found", "_source")

    def __init__(self, key: bytes | Callable[[], bytes]) -> None:
        self._source = key
        self._found: bytes | None = None
        if not callable(key):
            self._found = _checked(key, "customer_key")

    @classmethod
    def from_env(cls, name: str) -> S3CustomerKey:
        """The key that an environment variable has, in base64."""
        return cls(_Variable(name))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> S3CustomerKey:
        """The key that a file has: 32 bytes, or these in base64."""
        return cls(_File(os.fspath(path)))

    def _headers(self, of: str = "") -> dict[str, str]:
        """The headers for an object; with ``of="copy-source-"``, for the source of a copy.

        Raises:
            S3ConfigurationError: the key cannot be had.
        """
        key = self._key()
        prefix = f"x-amz-{of}server-side-encryption-customer-"
        md5 = hashlib.md5(key, usedforsecurity=False).digest()
        texts = {"algorithm": _ALGORITHM, "key": _text_of(key), "key-md5": _text_of(md5)}
        return {f"{prefix}{name}": text for name, text in texts.items()}

    def _key(self) -> bytes:
        if self._found is None:
            assert callable(self._source)
            try:
                key = self._source()
            except S3Exception:
                raise
            except Exception as error:  # of the program's own; its text may have anything in it
                raise S3ConfigurationError(
                    f"the customer key could not be obtained: {_name_of(self._source)} raised {type(error).__name__}"
                ) from error
            self._found = _checked(key, _name_of(self._source))
        return self._found

    @staticmethod
    def _refuse_unencrypted(url: str) -> None:
        """``refuse_unencrypted`` for an endpoint's URL."""
        parts = urlsplit(url)
        refuse_unencrypted(parts.scheme, parts.hostname or "")

    def _redacted(self, text: bytes) -> bytes:
        """What a server said, without the key."""
        return text if self._found is None else text.replace(_text_of(self._found).encode(), b"(the customer key)")

    def __repr__(self) -> str:
        source = self._source
        if isinstance(source, _Variable):
            return f"S3CustomerKey.from_env({source.name!r})"
        if isinstance(source, _File):
            return f"S3CustomerKey.from_file({source.path!r})"
        return f"S3CustomerKey(<{_name_of(source) if callable(source) else 'bytes'}>)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, S3CustomerKey):
            return NotImplemented
        mine, theirs = self._source, other._source
        if isinstance(mine, bytes) and isinstance(theirs, bytes):
            return hmac.compare_digest(mine, theirs)
        return mine == theirs

    def __hash__(self) -> int:
        return hash(self._source)

    def __copy__(self) -> S3CustomerKey:
        return self

    def __deepcopy__(self, memo: Any) -> S3CustomerKey:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if not callable(self._source):
            raise S3ConfigurationError(
                "a customer key that was given as bytes is not pickled, because pickles are stored and logged. Pass "
                "S3CustomerKey.from_env, from_file, or a function that returns it: spawned workers then look it up"
            )
        return S3CustomerKey, (self._source,)


@dataclass(frozen=True)
class _Variable:
    name: str

    def __call__(self) -> bytes:
        text = os.environ.get(self.name)
        if not text:
            raise S3ConfigurationError(f"the customer key is missing: set the environment variable {self.name}")
        return _decoded(text, f"the environment variable {self.name}")


@dataclass(frozen=True)
class _File:
    path: str

    def __call__(self) -> bytes:
        try:
            with open(self.path, "rb") as file:
                data = file.read(4096)
        except OSError as error:
            raise S3ConfigurationError(f"the customer key cannot be read: {error}") from error
        return data if len(data) == _SIZE else _decoded(data, f"the file {self.path}")


def refuse_unencrypted(scheme: str, host: str) -> None:
    """Refuse to send a customer's key in the clear.

    Raises:
        S3ConfigurationError: it would be sent so, over a network.
    """
    if scheme == "http" and host not in _NEARBY:
        raise S3ConfigurationError(
            f"customer_key is not sent to http://{host}: anyone on the way could read it. Use an https:// endpoint"
        )


def _decoded(text: str | bytes, where: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise S3ConfigurationError(f"the customer key in {where} is not in base64") from None  # without the text


def _checked(key: object, where: str) -> bytes:
    if not isinstance(key, (bytes, bytearray, memoryview)):
        raise S3ConfigurationError(f"{where}: a customer key is {_SIZE} bytes, not {type(key).__name__}")
    if len(key) != _SIZE:
        raise S3ConfigurationError(f"{where}: a customer key has {_SIZE} bytes, and this one has {len(key)}")
    return bytes(key)


def _text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _name_of(source: Callable[[], bytes]) -> str:
    return repr(source)[1:] if isinstance(source, (_Variable, _File)) else name_of(source)
