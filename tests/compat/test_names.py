"""What programs for 1.5.0 import is here, with the same parameters. ``names_of_1_5_0.txt`` is what 1.5.0 has.

Names of other packages that its modules happen to import (``typing.List``, ``io.SEEK_SET``) are not in the comparison.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peer
from tests.compat import names
from tests.servers.processes import run

_LINES = Path(__file__).with_name("names_of_1_5_0.txt").read_text(encoding="utf-8").splitlines()
_NATIVE = "an import of the native client in a private module; it is in s3torchconnectorclient._mountpoint_s3_client"
_STREAM = "programs get streams from a client, and make none"
_TEXT = "the text of an error that does not exist here: any range can be read"
EXCEPTIONS = {
    "s3torchconnector._s3client._mock_s3client MockMountpointS3Client": _NATIVE,
    "s3torchconnector._s3client._mock_s3client MountpointS3Client": _NATIVE,
    "s3torchconnector._s3client._mock_s3client S3Client": "an import in a private module; it is in the package",
    "s3torchconnector._s3client._mock_s3client S3ClientConfig": "an import in a private module; it is in the package",
    "s3torchconnector._s3client._mock_s3client UserAgent": "an import in a private module; it is in _user_agent",
    "s3torchconnector._s3client._s3client GetObjectStream": _NATIVE,
    "s3torchconnector._s3client._s3client ListObjectStream": _NATIVE,
    "s3torchconnector._s3client._s3client MountpointS3Client": _NATIVE,
    "s3torchconnector._s3client._s3client join_all_managed_threads": _NATIVE,
    "s3torchconnector._s3dataset_common S3BucketIterable": "private; get_objects_from_prefix returns the same objects",
    "s3torchconnector.s3reader.constructor FALLBACK_GUIDANCE": _TEXT,
    "s3torchconnector.s3reader.dcp_optimized FALLBACK_GUIDANCE": _TEXT,
    "s3torchconnector.s3reader.dcp_optimized FIND_ITEM_ERROR_PREFIX": _TEXT,
    "s3torchconnectorclient._mountpoint_s3_client GetObjectStream()": _STREAM,
    "s3torchconnectorclient._mountpoint_s3_client ListObjectStream()": _STREAM,
    "s3torchconnectorclient._mountpoint_s3_client PutObjectStream()": _STREAM,
}
_OF_OTHERS = re.compile(r" (SEEK_\w+|TYPE_CHECKING)$")


def _find(module: str, path: str) -> Any:
    found = importlib.import_module(module)
    for name in path.split("."):
        if inspect.isclass(found) and not hasattr(found, name):
            assert re.search(rf"\bself\.{name}\b[^=\n]* = ", inspect.getsource(found)), f"{found} has no {name}"
            return None
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("line", [line for line in _LINES if line not in EXCEPTIONS and not _OF_OTHERS.search(line)])
def test_is_here(line: str) -> None:
    module, _, rest = line.partition(" ")
    path, called, parameters = rest.partition("(")
    found = _find(module, path)
    wanted = [name for name in parameters.rstrip(")").split(", ") if name]
    if called:
        ours = [name for name in inspect.signature(found).parameters if name not in ("self", "args")]
        assert [name for name in ours if name in wanted] == wanted


def test_each_exception_is_a_name_of_1_5_0_that_is_not_here() -> None:
    assert EXCEPTIONS.keys() <= set(_LINES)
    there = [line for line in EXCEPTIONS if "(" not in line and _has(*line.split(" "))]
    assert there == []


def _has(module: str, name: str) -> bool:
    return hasattr(importlib.import_module(module), name)


@pytest.mark.slow
def test_the_list_matches_1_5_0() -> None:
    python = peer.interpreter(Path(peer.__file__).parents[1] / ".venv-peer")
    done = run([python, "-W", "ignore", names.__file__], 180, env=peer.environment(os.environ))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == _LINES
