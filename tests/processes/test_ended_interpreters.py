"""What a program still holds when its interpreter ends is left alone, without a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3torchconnector.testing import S3Server
from tests.servers.warm import WarmPython

# Modules that something keeps lose their names, the youngest first. What an older module holds is collected after that.
_PROGRAM = """
import codecs, sys, threading
from s3torchconnector import S3Client, S3IterableDataset, S3Manifest, S3MapDataset, S3StreamingDataset
from s3torchconnector.s3cache import S3Cache
from s3torchconnector.s3dataloader import S3DataLoader

bucket, folder, kept = sys.argv[1:]
client = S3Client("us-east-1")
prefix = f"s3://{bucket}/"

def begun(iterable):
    iterator = iter(iterable)
    next(iterator)
    return iterator

def prefetched():
    reader = client.get_object(bucket, "large")
    reader.prefetch()
    return reader

def writing():
    writer = client.put_object(bucket, "new")
    writer.write(bytes(20_000_000))
    return writer

def streaming(**options):
    manifest = S3Manifest.from_prefix(prefix, region="us-east-1")
    dataset = S3StreamingDataset(manifest, batch_size=2, transform=str, **options)
    return begun(S3DataLoader(dataset, collate_fn=list))

threading.kept = eval(kept)
modules = list(sys.modules.values())
codecs.register_error("kept", lambda error, modules=modules: None)
"""


@pytest.mark.parametrize(
    "kept",
    [
        "prefetched()",
        "writing()",
        "begun(client.get_object(bucket, 'large'))",
        "begun(client.list_objects(bucket))",
        "begun(client.list_all(bucket, ''))",
        "S3MapDataset.from_prefix(prefix, region='us-east-1')[0]",
        "begun(S3IterableDataset.from_prefix(prefix, region='us-east-1'))",
        "streaming()",
        "streaming(transform_threads=2)",
        "streaming(cache=S3Cache(folder, max_bytes=100_000_000))",
    ],
)
def test_nothing_is_printed(
    s3_server: S3Server, bucket: str, warm_python: WarmPython, tmp_path: Path, kept: str
) -> None:
    for number in range(8):
        (s3_server.folder / bucket / f"{number}").write_bytes(bytes(100_000))
    (s3_server.folder / bucket / "large").write_bytes(bytes(20_000_000))
    done = warm_python.run("-c", _PROGRAM, bucket, str(tmp_path), kept)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
