"""README.md and docs/guide: their Python blocks run as they are printed.

Each block is a separate program. What they take for granted is the fixture ``my_bucket``: the bucket ``my-bucket`` on
the test suite's S3 server, which the environment names, with the objects that the examples read.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from s3torchconnector import S3Checkpoint
from s3torchconnector.testing import S3Server
from tests.docs.pages import PAGES, Block
from tests.shards.mds import described, encoded, index_of, shard_of
from tests.shards.support import tar

_BLOCKS = [block for page in PAGES for block in page.blocks("python")]

# By page, what each block prints, or a part of it, by a word of its code: a new block needs an entry, unless a text
# block right below it says what it prints.
_PRINTED = {
    "README.md": {"torch.optim": "saved [2, 4]\n", "epoch-1": ""},
    "docs/guide/getting-started.md": {
        "keep_version": "<SequentialS3Reader s3://my-bucket/model.pt at 0>\n",
        "accesspoint": "S3IterableDataset of s3://arn:aws:s3:us-west-2:123456789012:accesspoint/my-ap/images/\n",
        "from_vault": "b'hello' read by from_vault",
        "bytes of": " bytes of images/0.png",
        "unsigned": "",
        "force_path_style": "https://minio.example.com:9000\n",
        "ObjectInfo": "10 bytes\n",
        "scratch": "['hello.txt']\n",
        "first-run": "saved step 5 in epoch 1\n",
    },
    "docs/guide/datasets.md": {
        "S3Trainer": "",
        "TorchTrainer": "2 images, then the state is 2\n2 images, then the state is 4\n2 images, then the state is 6\n",
        "S3StreamingDataset.mix": "500 of 2000 500\n",
        "transform_threads": "(3, 32, 32, 3)\n(3, 32, 32, 3)\n",
        "balance=": "6 images\n",
        "manifests/images": "epoch 0 of 6 images has ended at 6\nepoch 1 of 6 images has ended at 6\n",
        "make_loader": "[4] images are left\n",
        "S3Cache(": "6 hits; {'hits': 6, 'misses': 6,",
        "manifest.split": "6 images, ",
        "ElasticDistributedSampler": "stopped at 6 of 6\n",
        "enable_sharding": "3 images of [",  # two workers, six images
        "def decode": "6 images, the first of (8, 8) pixels",
        "from_objects": "['images/5.png', 'images/3.png', 'images/3.png']\n",
        "from_tar": "6 samples, such as shards/train-00",
        "from_parquet": "4 row groups, such as rows/0.parquet/1\n[6.0, 6.0]\n[6.0, 6.0]\n",
        "from_mds": "[(0, 'text 0'), (1, 'text 1'), (2, 'text 2')]\n",
        "group_by_stem": "5 objects, 2 pairs\npairs/0 b'a caption' 1000 bytes\n",
        "def main": "bytes in a batch of 3\n",
        "zipfile": "['hello.txt'] in archive.zip",
        "range_based": r"b'\x89PNG\r\n\x1a\n'",
        "NamedReader": "s3://my-bucket/images/0.png unknown\n",
    },
    "docs/guide/coming-from.md": {
        "manifests/litdata": "6 of 6 samples seen\n",
        "from_tar": "6 samples, 3 batches\n",
        "from_mds": "['label', 'text'] [0, 1, 2]\n",
        "from-s3fs": "['from-s3fs/model.pt'] torch.Size([3])\n",
    },
    "docs/guide/checkpoints.md": {
        "numpy.save": "80128 bytes written",
        "overwrite=False": "S3ObjectExistsError in HeadObject\nb'first'\n",
        "dcp.load": "loaded: True",
        "ByHost": "['/.metadata', '/host-0/__0_']",
        "BoringModel": (
            "s3://my-bucket/run-1/checkpoints/epoch=0-step=64.ckpt s3://my-bucket/run-1/checkpoints/last.ckpt"
        ),
        "save_safetensors": "torch.Size([8])\ntorch.Size([100, 8])",
        "S3CheckpointManager": "2700 [1000, 2000, 2600, 2700]",
        "list_multipart_uploads": "",
    },
    "docs/guide/metrics.md": {
        "S3StreamingDataset": "{200: ",
        "def show": " requests, 0 throttled\n",
        "SummaryWriter": "",
        "REGISTRY": "True\n",
        "instrument": "s3torchconnector.throttles\n",
    },
    "docs/guide/configuration.md": {
        "memory_budget": "b'\\x89PNG' read by S3ClientConfig(",
        "S3WriteOptions": "",
        "from_env": "S3CustomerKey.from_env('IMAGES_KEY')\n",
        "logging": "",
    },
    "docs/guide/servers.md": {
        "equal_parts": "https://s3.example.com\n",
        **dict.fromkeys(("minio = ", "YOUR-ACCOUNT.r2.", "google = ", "backblaze = ", "ceph = ", "rustfs = "), ""),
    },
    "docs/guide/errors.md": {
        "except S3NotFoundError": "True GetObject NoSuchKey Service error: The key does not exist",
        "except OSError": "None",
        "CheckpointException": "rank 0 raised S3NotFoundError NoSuchBucket\nthere is no checkpoint\n",
    },
    "docs/guide/express.md": {
        "S3MapDataset": "S3MapDataset made; nothing is requested yet\n",
        "ThreadPoolExecutor": "2 shards copied\n",
    },
    "docs/guide/migrating.md": {"put_object": "7168\n"},
    "docs/guide/troubleshooting.md": {"logging": "", "impatient": "True\n"},
}


@pytest.fixture(scope="module")
def my_bucket(s3_server: S3Server) -> None:
    """Made once: rclone takes a name again only when it has forgotten the folder. No block changes what others read."""
    s3_server.make_bucket("my-bucket")
    checkpoint = S3Checkpoint(s3_server.region)
    for number in range(6):
        with checkpoint.writer(f"s3://my-bucket/images/{number}.png") as writer:
            Image.new("L", (8, 8), number).save(writer, format="PNG")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writing:
        writing.writestr("hello.txt", "hello")
    with checkpoint.writer("s3://my-bucket/archive.zip") as writer:
        writer.write(archive.getvalue())
    for number in range(2):
        samples = {f"{i}.{name}": f"{name} {i}".encode() for i in range(3) for name in ("jpg", "txt")}
        with checkpoint.writer(f"s3://my-bucket/shards/train-{number:03}.tar") as writer:
            writer.write(tar(samples))
    for key, data in (_rows() | _mds()).items():
        with checkpoint.writer(f"s3://my-bucket/{key}") as writer:
            writer.write(data)
    for name, content in {
        "0.jpg": bytes(1000),
        "0.txt": b"a caption",
        "1.jpg": b"",
        "1.txt": b"",
        "2.txt": b"",
    }.items():
        with checkpoint.writer(f"s3://my-bucket/pairs/{name}") as writer:
            writer.write(content)


def _rows() -> dict[str, bytes]:
    """Two Parquet files with two row groups each."""
    table = pyarrow.table({"number": range(4), "text": [f"text {i}" for i in range(4)]})
    file = io.BytesIO()
    parquet.write_table(table, file, row_group_size=2)
    return {f"rows/{number}.parquet": file.getvalue() for number in range(2)}


def _mds() -> dict[str, bytes]:
    """A shard of three samples."""
    columns = [("label", "int", 8), ("text", "str", None)]
    shard = shard_of([encoded(columns, [bytes([i]) + bytes(7), f"text {i}".encode()]) for i in range(3)])
    index = index_of(described("shard.00000.mds", shard, 3, columns))
    return {"mds/index.json": index, "mds/shard.00000.mds": shard}


@pytest.fixture
def _log_as_before() -> Iterator[None]:
    """What a block does to the root logger and to ours is undone."""
    root, ours = logging.getLogger(), logging.getLogger("s3torchconnector")
    handlers, level = list(root.handlers), ours.level
    yield
    root.handlers[:] = handlers
    ours.setLevel(level)


@pytest.mark.usefixtures("my_bucket", "_log_as_before")
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")  # a checkpoint of one process
@pytest.mark.parametrize("block", [pytest.param(block, id=f"{block.page} line {block.line + 1}") for block in _BLOCKS])
def test_a_block_runs_as_printed(
    block: Block, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    expected = [text for mark, text in _PRINTED.get(block.page, {}).items() if mark in block.text]
    assert len(expected) == (block.printed is None)
    # Its lines are counted so that a traceback names the page's.
    program = compile("\n" * block.line + block.text, block.page, "exec")
    exec(program, {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert printed == block.printed if block.printed is not None else expected[0] in printed
