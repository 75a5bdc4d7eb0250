"""The examples run, and say what they should; the demo has a test of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.servers.processes import run

_EXAMPLES = Path(__file__).parents[1] / "examples"
_SECONDS = 180.0  # they take 12
_SECONDS_OF_RAY = 600.0  # 50 seconds of processor time, in a dozen processes that wait for each other


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fsdp2_dcp", "when saved by 2 ranks"),
        ("ddp", "rank 1 saw 32 samples"),
        ("async_checkpoint", "the last checkpoint is of step 30"),
        ("reshard", "one process loaded all of it: True"),
        ("elastic_resume", "211 samples; read again: 0, left out: 0"),
        ("ray_train", "131 samples in batches of 13: the epoch has ended\n211 samples; read again: 0, left out: 0"),
        ("lightning_mid_epoch", "63 samples to the end of the epoch; read again: 0"),
        ("lightning_fit", "resumed, up to epoch 10"),
        ("webdataset_in_place", "resumed: 64 samples, each seen once"),
        ("metrics", '400 objects were read, for $0.000165\ns3torchconnector_requests_total{operation="GetObject"'),
        ("safetensors_subset", "a quarter of the embedding         1 tensors     4.2 MB"),
    ],
)
def test_example(name: str, expected: str) -> None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    seconds = _SECONDS_OF_RAY if name == "ray_train" else _SECONDS
    done = run([sys.executable, _EXAMPLES / f"{name}.py"], seconds, env=variables)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
    assert "Warning" not in done.stderr
    if name == "fsdp2_dcp":
        words = done.stdout.split()
        assert words[1] == words[-3]  # the loss when saved, and when loaded
    if name == "lightning_fit":
        assert {"checkpoints/epoch=9-step=80.ckpt", "checkpoints/last.ckpt"} <= {
            word.removeprefix("s3://training/run-1/") for word in done.stdout.split()
        }
