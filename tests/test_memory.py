"""Resident memory of a process of its own against the formula in the docstring of ``S3ClientConfig``."""

from __future__ import annotations

import os

import pytest

from benchmarks import memory
from s3torchconnector.testing import S3Server


@pytest.mark.slow
@pytest.mark.parametrize("name", memory.PATTERNS)
def test_a_process_stays_within_the_documented_memory(s3_server: S3Server, bucket: str, name: str) -> None:
    with open(s3_server.folder / bucket / memory.KEY, "wb") as file:
        os.truncate(file.fileno(), memory.SIZE)
    assert memory.measured(name, s3_server.endpoint, bucket) <= 1.1 * memory.documented(memory.PATTERNS[name])
