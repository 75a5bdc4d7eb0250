"""The manager in a job of two real ranks: one manifest for what both have stored."""

from __future__ import annotations

import pytest
import torch

from s3torchconnector import S3CheckpointManager
from s3torchconnector._errors import S3FormatError
from s3torchconnector.testing import S3Server
from tests.checkpoint_manager import jobs
from tests.dcp.support import keys_of, run_ranks


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_two_ranks(s3_server: S3Server, bucket: str) -> None:
    run_ranks(2, jobs.save_and_load, f"s3://{bucket}/run")
    manager = S3CheckpointManager(f"s3://{bucket}/run", s3_server.region)
    assert manager.steps() == [2, 3]
    assert manager.clean() == ([], [])
    manager.verify(2)
    state = {"of rank 1": torch.zeros(1000), "shared": torch.zeros(10)}
    assert manager.load(2, state_dict=state)["of rank 1"].unique().item() == 2  # one process, from what two stored
    with pytest.raises(ValueError, match="give the state_dict to load into"):
        manager.load(2)
    lost = next(key for key in keys_of(bucket) if key.endswith(".distcp") and "step-0000000002" in key)
    manager._store.client.delete_object(bucket, lost)
    with pytest.raises(S3FormatError, match=r"\.distcp is missing"):
        manager.verify(2)
