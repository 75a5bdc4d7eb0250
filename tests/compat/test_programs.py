"""A program written for 1.5.0 sees here what it sees there: both run it, and what they print is compared.

The server is moto, because rclone refuses the trailing checksums that 1.5.0 sends.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peer
from tests.compat import programs
from tests.servers.moto_server import MotoServer
from tests.servers.processes import run

_SECONDS = 180.0

EXPECTED: dict[str, Any] = {
    "write_through_the_client": [
        "S3Writer", False, True, False, 4, 4, True, True, [0, 1, 2, 3, 4], "one\n", True,
    ],
    "use_the_helpers_of_the_datasets": [
        ["a/1.txt", "a/1.txt", 7],
        [["a/2.txt", "a/3.bin"], [], "a/1.txt", ["a/2.txt"]],
        ["a/1.txt", "a/2.txt"],
        ["a/1.txt=a/1.txt", "a/2.txt=a/2.txt", "a/3.bin=a/3.bin"],
        ["a/2.txt=a/2.txt", "a/1.txt=a/1.txt"],
        "a/2.txt",
        ["bucket", "a/b"],
        ["bucket", ""],
    ],
    "look_into_a_map_dataset": [
        True, "a/1.txt", "a/2.txt", 7, ["a/2.txt", "a/3.bin"], 3, "a/2.txt", "us-east-1", list("a/3.bin=a/3.bin"), 7,
        ["0:a/1.txt", "1:a/2.txt"], [["0:a/1.txt", "1:a/2.txt"]], 1, True, ["b", "j", None],
    ],
    "describe_objects_in_a_reader_constructor": [
        "a/22.txt=a/22.txt", "a/1.txt=a/1.txt", ["a/1.txt=a/1.txt", "a/22.txt=a/22.txt"],
        [
            ["a/22.txt", 8, 32, True], ["a/1.txt", 7, 32, True],
            ["a/1.txt", 7, 32, True], ["a/22.txt", 8, 32, True],
        ],
    ],
    "override_the_hooks_of_an_iterable_dataset": [
        [["a/1.txt", "a/1.txt=a/1.txt"], ["a/2.txt", "a/2.txt=a/2.txt"]],
        ["a/1.txt=a/1.txt", "a/2.txt=a/2.txt"], ["a/1.txt", "a/2.txt"], "a/2.txt=a/2.txt", ["a/2.txt"],
        "a/1.txt", ["a/1.txt"],
    ],
    "tell_errors_by_their_first_words": [
        ["S3Exception", "Service error: The object was not found"],
        ["S3Exception", "Service error: The object was not found"],
        [False, False, False, True, True, False, False], "ValueError",
    ],
    "look_into_prefix_strategies": [
        [["000", "100", "010", "x"], 3, 3, 2, "x/epoch_2/__3_"],
        [["0000000000", "1000000000"], 10, 2, 16, "1000000000/__3_"],
        [["aa", "ba", "ab", "bb"], 1, 4, 2, "bb/__3_"],
    ],
    "load_by_a_reader_of_its_own": [[[0, 1, 2], [3, 4, 5]], 3, ["step-1/.met", "step-1/__0_"]],
}  # fmt: skip


def test_each_program_has_its_outcome() -> None:
    assert EXPECTED.keys() == programs.PROGRAMS.keys()


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("name", EXPECTED)
def test_here(moto_bucket: str, moto_server: MotoServer, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto_server.endpoint)
    assert json.loads(json.dumps(programs.PROGRAMS[name](moto_bucket))) == EXPECTED[name]


@pytest.fixture(scope="module")
def native() -> Path:
    """The interpreter that has 1.5.0."""
    return peer.interpreter(Path(peer.__file__).parents[1] / ".venv-peer")


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_with_1_5_0(native: Path, moto_bucket: str, moto_server: MotoServer, name: str) -> None:
    endpoint = dict.fromkeys(("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"), moto_server.endpoint)
    variables = peer.environment({**os.environ, **endpoint})
    done = run([native, programs.__file__, name, moto_bucket], _SECONDS, env=variables)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == EXPECTED[name]
