"""What behaves differently than in 1.5.0 on purpose, as ``docs/guide/migrating.md`` says."""

from __future__ import annotations

import io

import pytest
import torch
import torch.distributed.checkpoint as dcp

from s3torchconnector import S3Checkpoint
from s3torchconnector.dcp import S3StorageWriter
from s3torchconnector.lightning import S3LightningCheckpoint
from s3torchconnector.testing import S3Server


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_threads_without_data_store_no_file(s3_server: S3Server, bucket: str) -> None:
    writer = S3StorageWriter("us-east-1", f"s3://{bucket}/step-1", thread_count=4)
    dcp.save({"weight": torch.ones(3)}, storage_writer=writer)
    names = sorted(path.name for path in (s3_server.folder / bucket / "step-1").iterdir())
    assert [name.rpartition(".")[2] for name in names] == ["metadata", "distcp"]


def test_the_lightning_plugin_loads_to_the_cpu_by_default(s3_server: S3Server, bucket: str) -> None:
    plugin, uri = S3LightningCheckpoint("us-east-1"), f"s3://{bucket}/last.ckpt"
    stored = io.BytesIO()
    torch.save({"weight": torch.ones(3)}, stored)
    # As if it had been saved on a device that is not here. No reader compares the sums of the archive's records.
    with S3Checkpoint("us-east-1").writer(uri) as writer:
        writer.write(stored.getvalue().replace(b"cpu", b"xpu"))
    with pytest.raises(RuntimeError, match=r"(?i)xpu"), S3Checkpoint("us-east-1").reader(uri) as reader:
        torch.load(reader)
    assert plugin.load_checkpoint(uri)["weight"].tolist() == [1, 1, 1]
