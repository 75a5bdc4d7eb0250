"""No deadlock, although every lock that is taken brings a collection and an import; see ``tests/stress_locks``."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

import s3torchconnector
from tests.servers.processes import run
from tests.servers.scripted import ScriptedServer

_ROOT = Path(__file__).parents[2]
_SOURCES = Path(s3torchconnector.__file__).parents[1]

# Each reader is dropped just as its thread has the lock of its token: the collection ends it there.
_PROGRAM = """
import gc, sys, threading
from tests import stress_locks
from s3torchconnector import S3ClientConfig
from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo

dropped, kept = threading.Event(), []

def drop(frame):
    if frame.f_code.co_name == "enter":
        kept.clear()
        dropped.set()

stress_locks.before_each.append(drop)
stress_locks.install()
config = S3ClientConfig(unsigned=True, max_attempts=1)
with S3Client("us-east-1", endpoint=sys.argv[1], s3client_config=config) as client:
    for number in range(40):
        dropped.clear()
        size = 100_000 if number % 2 else 20_000_000
        kept.append(client.get_object("bucket", "key", object_info=ObjectInfo("key", "", size, 0)))
        for reader in kept:
            reader._start_early()
        del reader
        client.put_object("bucket", "key").write(bytes(100_000))
        assert dropped.wait(10)
    gc.collect()
print(stress_locks.strikes())
"""


def test_readers_collected_under_their_own_locks(tmp_path: Path) -> None:
    path = os.pathsep.join([str(_ROOT), str(_SOURCES)])
    with ScriptedServer(handler=lambda _: []) as server:
        program = [sys.executable, "-W", "ignore::ResourceWarning", "-c", _PROGRAM, server.endpoint]
        done = run(program, 40, env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200


# Not those that interrupt at any moment, since a finaliser swallows what strikes there; nor those that read once for
# each of some hundred moments, which takes minutes under stress; nor those whose servers wait for requests, in an
# order or at a time, that a slow client does not send.
_NOT_UNDER_STRESS = [
    "-k",
    "not interrupt and not at_any_moment",
    "--deselect",
    "tests/engine/test_multiplexer.py::test_a_stalled_response_delays_no_other_object[in what follows an error]",
    "--deselect",
    "tests/listing/test_list_all.py::test_pages_of_one_prefix_are_fetched_at_a_time",
]


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["reading", "writing", "listing", "engine"])
def test_a_suite_under_stress(suite: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.stress_locks", "-p", "no:cacheprovider"]
    command += ["--timeout=120", "--timeout-method=thread", *_NOT_UNDER_STRESS, f"tests/{suite}"]
    done = run(command, 800, env={**os.environ, "PYTHONPATH": str(_SOURCES)}, cwd=_ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    struck = re.search(r"(\d+) locks were struck at", done.stdout)
    assert struck is not None
    assert int(struck.group(1)) > 1000
