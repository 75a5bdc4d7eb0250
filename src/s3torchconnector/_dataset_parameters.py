"""The parameters that the datasets share: their text, which stands here once. Pure.

The signatures stay written out, for editors and ``inspect.signature``. In a docstring, the line

    region, endpoint: described in ``_dataset_parameters``.

gets the text of each name from ``document``.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])

PARAMETERS = {
    "object_uris": "the objects: one URI (``s3://bucket/key``) or an iterable of URIs. The samples have their order.",
    "s3_uri": "``s3://bucket/prefix``. The samples are the objects whose keys begin with this prefix, in the order of "
    "the listing. Empty objects whose keys end with ``/`` (directory markers) are left out.",
    "region": 'region of the bucket, for example ``"us-east-1"``.',
    "get_dataset_objects": "returns the objects as an iterable of ``S3BucketKeyData``, given an ``S3Client``. Called "
    "whenever objects are to be listed.",
    "endpoint": "URL of the S3 server. By default the one that the environment or the AWS configuration names, and if "
    "there is none, AWS's for the region.",
    "transform": "makes a sample of an ``S3Reader``. By default the sample is the reader.",
    "s3client_config": "settings of the client, see ``S3ClientConfig``.",
    "enable_sharding": "whether ranks and ``DataLoader`` workers divide the samples, so that each sample goes to "
    "exactly one of them. By default each worker iterates over all samples.",
    "reader_constructor": "how objects are read, see ``S3ReaderConstructor``.",
    "skip_archived": "whether to leave out objects that cannot be read because they are archived (Glacier) and not "
    "restored. How many that are is logged. By default they are samples, whose reading raises S3ObjectArchivedError. "
    "So are, in any case, objects in the archive tiers of S3 Intelligent-Tiering, which no listing tells.",
    "cache": "keeps objects on a local disk of this node, see ``S3Cache``.",
    "look_ahead": "at most this number of objects is fetched before they are asked for; 0 turns it off. By default as "
    "many as ``throughput_target_gbps`` calls for.",
}

_REFERENCE = re.compile(r"^( *)(\w+(?:, \w+)*): described in ``_dataset_parameters``\.$", re.MULTILINE)


def document(documented: _F) -> _F:
    """Decorate a function or a class: fill in the text of the shared parameters that its docstring names."""
    if documented.__doc__ is not None:  # python -OO has none
        documented.__doc__ = described(documented.__doc__)
    return documented


def described(docstring: str) -> str:
    """The docstring with the text of the shared parameters that it names."""
    return _REFERENCE.sub(_described, docstring)


def _described(reference: re.Match[str]) -> str:
    indent, names = reference.groups()
    lines = [f"{name}: {PARAMETERS[name]}" for name in names.split(", ")]
    return "\n".join(
        textwrap.fill(line, 116, initial_indent=indent, subsequent_indent=f"{indent}    ") for line in lines
    )
