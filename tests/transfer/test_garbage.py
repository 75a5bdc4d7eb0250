"""A small object leaves nothing to the garbage collector, which takes longer for it than receiving does."""

from __future__ import annotations

import gc
from collections import Counter

from s3torchconnector import S3IterableDataset
from s3torchconnector.testing import S3Server
from tests.reading.support import KIB, client_of, content, put

COUNT = 20
SIZE = 100 * KIB


def test_a_small_object_leaves_no_cycle(s3_server: S3Server, bucket: str) -> None:
    with client_of(s3_server.endpoint) as client:
        for i in range(COUNT):
            put(client, bucket, f"{i}", content(i, i + SIZE))
    dataset = S3IterableDataset.from_objects(
        [f"s3://{bucket}/{i}" for i in range(COUNT)],
        region="us-east-1",
        endpoint=s3_server.endpoint,
        transform=lambda reader: len(reader.read()),
    )
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        assert list(dataset) == [SIZE] * COUNT
        gc.collect()
        left = Counter(type(thing) for thing in gc.garbage if "s3torchconnector" in type(thing).__module__)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    # What a client leaves when it ends, once, does not count.
    assert not [kind for kind, count in left.items() if count >= COUNT // 4]
