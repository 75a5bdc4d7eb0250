"""The manager in a job of two real ranks: one manifest for the files of both."""

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
    assert manager.load(2, state_dict=state)["of rank 1"].unique().item() == 2  # one process loads what two stored
    with pytest.raises(ValueError, match="pass the state_dict to load into"):
        manager.load(2)
    lost = next(key for key in keys_of(bucket) if key.endswith(".distcp") and "step-0000000002" in key)
    manager._store.client.delete_object(bucket, lost)
    with pytest.raises(S3FormatError, match=r"\.distcp is missing"):
        manager.verify(2)


def test_a_save_in_the_background_leaves_the_training_alone(s3_server: S3Server, bucket: str) -> None:
    run_ranks(2, jobs.save_while_training, f"s3://{bucket}/run")


def test_ranks_that_disagree_on_the_step_save_nothing(s3_server: S3Server, bucket: str) -> None:
    run_ranks(2, jobs.disagree, f"s3://{bucket}/run")
    assert keys_of(bucket) == []


def test_a_commit_has_every_file_of_every_rank(s3_server: S3Server, bucket: str) -> None:
    run_ranks(2, jobs.lose_a_file, f"s3://{bucket}/run")


def test_an_error_in_one_rank_is_raised_in_all(s3_server: S3Server, bucket: str) -> None:
    run_ranks(2, jobs.be_refused, f"s3://{bucket}/run")


def test_an_error_that_cannot_be_pickled_is_sent_as_text(s3_server: S3Server, bucket: str) -> None:
    run_ranks(2, jobs.fail_with_an_error_that_stays, f"s3://{bucket}/run")
