"""Checks whether a manifest that was stored earlier is the one that a job needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from s3torchconnector._datasets._named_files import expanded
from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._listed_objects import WHAT_TO_CHECK
from s3torchconnector._uri import display_uri, is_arn, parse_s3_uri

if TYPE_CHECKING:
    from s3torchconnector._datasets._rows import Samples

_REPORT = "/manifest.json"  # of S3 Inventory


def refuse_empty(samples: Samples, asked: str | Iterable[str], at: str) -> None:
    """
    Raises:
        S3ConfigurationError: a manifest that is to be stored for all has no samples.
    """
    if len(samples):
        return
    archived = samples.header.archived
    raise S3ConfigurationError(
        f"there is nothing in {_text(_several(asked))} for the manifest {at}, which is not stored: {WHAT_TO_CHECK}; "
        f"filters may let nothing pass{f'; {archived:,} archived objects are left out' if archived else ''}"
    )


def refuse_other(samples: Samples, asked: str | Iterable[str], at: str, maker: str | None) -> None:
    """Refuse a manifest that is empty, or was certainly made from something else.

    A manifest does not record filters, and nothing at all if it was made from named objects. A report of S3 Inventory
    may be of any bucket.

    Args:
        samples: the manifest.
        asked: what it should have been made of.
        at: where it is.
        maker: the function that would have made it; None if what that does with ``asked`` is not known.

    Raises:
        S3ConfigurationError: it was.
    """
    if not len(samples):
        raise S3ConfigurationError(f"the manifest at {at} has no samples: delete it, and it is made again")
    origin, asked = samples.header.origin, _several(asked)
    if maker is None or not origin or len({each.endswith(_REPORT) for each in (*origin, *asked)}) > 1:
        return
    by_key, by_folder = _has_access_point([*origin, *asked]), maker == "from_mds"
    if _places(origin, by_key, by_folder) != _places(asked, by_key, by_folder):
        raise S3ConfigurationError(
            f"the manifest at {at} was made of {_text(origin)}, and not of {_text(asked)}: delete it, choose another "
            "at=, or ask for what it was made of"
        )


def _several(uris: str | Iterable[str]) -> list[str]:
    return [uris] if isinstance(uris, str) else list(uris)


def _text(uris: Iterable[str]) -> str:
    """These URIs in an error text."""
    uris = [display_uri(*parse_s3_uri(uri)) for uri in uris]
    return ", ".join(uris) if len(uris) < 4 else f"{uris[0]} and {len(uris) - 1} others"


def _has_access_point(uris: Iterable[str]) -> bool:
    """Whether a bucket may come under two names."""
    buckets = {parse_s3_uri(uri)[0] for uri in uris}
    return any(is_arn(bucket) or bucket.endswith(("-s3alias", "--ol-s3")) for bucket in buckets)


def _places(uris: Iterable[str], by_key: bool, by_folder: bool) -> set[tuple[str, str]]:
    """Buckets and keys, in one spelling: ``by_key`` without buckets, ``by_folder`` without the names of indexes."""
    places = [parse_s3_uri(each) for uri in uris for each in expanded(uri)]
    if by_folder:
        places = [(bucket, f"/{key}".removesuffix("/index.json").rstrip("/")) for bucket, key in places]
    return {("" if by_key else bucket, key) for bucket, key in places}
