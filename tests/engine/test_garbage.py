"""A small object leaves nothing to the garbage collector, which takes longer for it than receiving does."""

from __future__ import annotations

import json

from s3torchconnector.testing import S3Server
from tests.reading.support import KIB, client_of, content, put
from tests.servers.warm import WarmPython

COUNT = 20
SIZE = 100 * KIB

# A process of its own: what other tests have left is collected at any time.
PROGRAM = """
import gc, json, sys
from collections import Counter
from s3torchconnector import S3IterableDataset

uris, endpoint = json.loads(sys.argv[1]), sys.argv[2]
read = lambda reader: len(reader.read())
dataset = S3IterableDataset.from_objects(uris, region="us-east-1", endpoint=endpoint, transform=read)
gc.collect()
gc.set_debug(gc.DEBUG_SAVEALL)
sizes = list(dataset)
gc.collect()
kinds = Counter(type(thing).__qualname__ for thing in gc.garbage if "s3torchconnector" in type(thing).__module__)
print(json.dumps([sizes, kinds]))
"""


def test_a_small_object_leaves_no_cycle(s3_server: S3Server, bucket: str, warm_python: WarmPython) -> None:
    with client_of(s3_server.endpoint) as client:
        for i in range(COUNT):
            put(client, bucket, f"{i}", content(i, i + SIZE))
    uris = json.dumps([f"s3://{bucket}/{i}" for i in range(COUNT)])
    done = warm_python.run("-c", PROGRAM, uris, s3_server.endpoint)
    assert done.returncode == 0, done.stderr
    sizes, left = json.loads(done.stdout)
    assert sizes == [SIZE] * COUNT
    # What a client leaves when it ends, once, does not count.
    assert not [kind for kind, count in left.items() if count >= COUNT // 4]
