"""The examples of distributed checkpoints run, and say what they should."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.servers.processes import run

_EXAMPLES = Path(__file__).parents[2] / "examples"
_SECONDS = 180.0  # they take 12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fsdp2_dcp", "when saved by 2 ranks"),
        ("ddp", "rank 1 saw 32 samples"),
        ("async_checkpoint", "the last checkpoint is of step 30"),
        ("reshard", "one process loaded all of it: True"),
    ],
)
def test_example(name: str, expected: str) -> None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = run([sys.executable, _EXAMPLES / f"{name}.py"], _SECONDS, env=variables)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
    assert "Warning" not in done.stderr
    if name == "fsdp2_dcp":
        words = done.stdout.split()
        assert words[1] == words[-3]  # the loss when saved, and when loaded
