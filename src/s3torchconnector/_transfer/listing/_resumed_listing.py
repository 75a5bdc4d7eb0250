"""What comes after a key in a listing: a dataset goes on there without passing over what it has read."""

from __future__ import annotations

from collections.abc import Iterator

from s3torchconnector._errors import S3NotFoundError
from s3torchconnector._listing_results import ObjectInfos
from s3torchconnector._transfer.engine._runtime import OpenRuntime
from s3torchconnector._transfer.listing._listing import is_listed_in_order
from s3torchconnector._transfer.listing._parallel_listing import list_all
from s3torchconnector._uri import display_uri


def list_after(
    open_runtime: OpenRuntime, bucket: str, prefix: str, after: str, *, restore_status: bool = False
) -> Iterator[ObjectInfos]:
    """As ``list_all``, what comes after a key. If keys are not listed in order, that key must still be there.

    Raises:
        S3Exception: an error occurred accessing S3.
        S3NotFoundError: the listing cannot continue, because the key is not listed.
    """
    if is_listed_in_order(open_runtime, bucket) and bucket not in open_runtime().disordered_buckets:
        for page in list_all(open_runtime, bucket, prefix, restore_status=restore_status, after=after):
            # Some servers ignore ``start-after``.
            yield page if page.keys[0] > after else ObjectInfos.of(info for info in page if info.key > after)
        return
    found = False
    for page in list_all(open_runtime, bucket, prefix, restore_status=restore_status):
        if found:
            yield page
        elif after in page.keys:
            found = True
            yield page[page.keys.index(after) + 1 :]
    if not found:
        raise S3NotFoundError(
            f"{display_uri(bucket, after)} is not listed any more, and its bucket is not listed in the order of keys: "
            "so it is unknown what comes after it. Start the pass again",
            bucket=bucket,
            key=after,
        )
