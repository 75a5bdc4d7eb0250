"""Checkpoints of 1.5.0 load here, and those of this package there. The peer is that of the benchmark.

The server is moto, because rclone refuses the trailing checksums that 1.5.0 sends.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks import peer
from tests.dcp import peer_job
from tests.servers.moto_server import MotoServer
from tests.servers.processes import run

_FOLDER = Path(peer.__file__).parents[1] / ".venv-peer"
_SECONDS = 180.0


def _run(python: str | Path, action: str, path: str, variables: dict[str, str]) -> str:
    done = run([python, peer_job.__file__, action, path], _SECONDS, env=variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("peer_saves", [True, False])
def test_each_loads_what_the_other_saved(moto_bucket: str, moto_server: MotoServer, peer_saves: bool) -> None:
    endpoint = dict.fromkeys(("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"), moto_server.endpoint)  # of both kinds
    variables = {**os.environ, **endpoint}
    theirs = peer.interpreter(_FOLDER), peer.environment(variables)
    ours = sys.executable, variables
    (saver, its_variables), (loader, other_variables) = (theirs, ours) if peer_saves else (ours, theirs)
    path = f"s3://{moto_bucket}/x"
    versions = [_run(saver, "save", path, its_variables), _run(loader, "load", path, other_variables)]
    assert versions.index(peer.VERSION) == (0 if peer_saves else 1)
    assert versions[0] != versions[1]
