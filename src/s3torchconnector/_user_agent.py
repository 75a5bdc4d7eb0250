"""The User-Agent header, in the form of AWS SDKs (``ua/2.1``), so that access logs tell datasets from checkpoints.

Tokens are ``name/value`` and ``name/key#value``; what a class adds is a comment at the end. The form is described in
botocore's module ``useragent``: https://github.com/boto/botocore/blob/develop/botocore/useragent.py
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from functools import lru_cache

from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._late_imports import no_fork
from s3torchconnector._version import __version__

_SYMBOLS_IN_TOKENS = "!$%&'*+.^_`|~,-"
_SYSTEMS = {"darwin": "macos"}


class UserAgent:
    """The text by which a client names itself to a server.

    Args:
        comments: added at the end, in parentheses and separated by semicolons.

    Attributes:
        prefix: the text.

    Raises:
        S3ConfigurationError: (a ``ValueError``) a comment is not printable ASCII.
    """

    def __init__(self, comments: Sequence[str] | None = None) -> None:
        self._comments = list(comments or ())
        for each in self._comments:
            check_printable(each)

    @property
    def prefix(self) -> str:
        comment = f" ({'; '.join(self._comments)})" if self._comments else ""
        return self.get_default_prefix() + comment

    @staticmethod
    def get_default_prefix() -> str:
        """Return what all clients say: versions of this package, the system, Python and PyTorch."""
        return _own(_torch_version())

    def __repr__(self) -> str:
        return f"UserAgent({self._comments!r})"


def check_printable(text: str) -> None:
    """Refuse what could forge a header.

    Raises:
        S3ConfigurationError: it is not printable ASCII.
    """
    if not (text.isascii() and text.isprintable()):
        raise S3ConfigurationError(f"the user agent must be printable ASCII: user_agent={text!r}")


@lru_cache
def _own(torch: str | None) -> str:
    system = platform.system().lower()
    version = platform.mac_ver()[0] if system == "darwin" else platform.release()
    fields = [
        ("os", _SYSTEMS.get(system, system), version),
        ("lang", "python", platform.python_version()),
        ("md", "arch", platform.machine()),
    ]
    if torch is not None:
        fields.append(("md", "pytorch", torch))
    tokens = [f"{name}/{_token(key)}#{_token(value)}" for name, key, value in fields]
    return " ".join([f"s3torchconnector/{__version__}", "ua/2.1", *tokens])


def _token(text: str) -> str:
    return "".join(each if (each.isascii() and each.isalnum()) or each in _SYMBOLS_IN_TOKENS else "-" for each in text)


def _torch_version() -> str | None:
    """PyTorch's version, without importing PyTorch, which takes a second and may not be needed."""
    loaded = getattr(sys.modules.get("torch"), "__version__", None)
    return _installed_torch() if loaded is None else str(loaded)


@lru_cache
def _installed_torch() -> str | None:
    with no_fork:
        from importlib import metadata
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None
