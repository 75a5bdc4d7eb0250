"""Writing an object again, from its start, after the server has refused to complete its upload for its checksums.

Such a server has taken the checksums of all parts, and says at the end that it does not know them, or compares them in
another way; see ``_completion_forms``. The parts are useless now: the checksums that they were begun with decide what
the completion must contain, no request copies parts of an unfinished upload, and their memory has been given back. The
client has learnt that the bucket takes no checksums. So code that still has the data, such as the tensors of a
checkpoint, writes it again. A program that writes its own stream gets the error, which says to do that.

With ``checksum="required"`` no upload goes without, and nothing is written again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from s3torchconnector._errors import S3Exception
from s3torchconnector._uri import display_uri

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


def start_over_if_refused(store: Callable[[], _T]) -> _T:
    """Call ``store``, and once more if the server has refused an upload for its checksums, which it then leaves out.

    Args:
        store: writes an object from its start, each time to a new upload.

    Raises:
        S3Exception: as ``store`` does.
    """
    try:
        return store()
    except S3Exception as error:
        if not error._would_succeed_again:
            raise
        _log.info("%s is written again, without checksums", display_uri(error.bucket or "", error.key or ""))
    return store()
