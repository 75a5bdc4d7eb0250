"""What `make dist` builds: the wheel works in an empty environment, and the tests run from the sdist."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from s3torchconnector.testing import S3Server
from tests import dist
from tests.dist import Distribution
from tests.servers.processes import run

_SECONDS = 600.0  # PyTorch is large; from a local index it takes one minute

_TEN_LINES = """
import sys, torch, torch.distributed.checkpoint as dcp
from torch.utils.data import DataLoader
from s3torchconnector import S3Checkpoint, S3MapDataset, dcp as s3dcp
uri, endpoint = f"s3://{sys.argv[1]}", sys.argv[2]
checkpoint = S3Checkpoint("us-east-1", endpoint)
with checkpoint.writer(f"{uri}/model.pt") as writer:
    torch.save({"weight": torch.arange(3)}, writer)
with checkpoint.reader(f"{uri}/model.pt") as reader:
    print(torch.load(reader)["weight"].tolist())
dcp.save({"bias": torch.ones(2)}, storage_writer=s3dcp.S3StorageWriter("us-east-1", f"{uri}/step", endpoint=endpoint))
images = S3MapDataset.from_prefix(f"{uri}/step/", region="us-east-1", endpoint=endpoint, transform=lambda it: it.key)
print(sorted(key for keys in DataLoader(images, batch_size=8, num_workers=1) for key in keys)[0])
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Not pytest's, which would keep gigabytes until the third run after this one."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def built(folder: Path) -> Distribution:
    return dist.build(folder / "dist")


@pytest.mark.slow
def test_wheel_and_sdist_are_complete_and_the_same_when_built_again(built: Distribution, folder: Path) -> None:
    assert dist.check(built) == []
    assert dist.differences(built, dist.build(folder / "again")) == []


@pytest.mark.slow
def test_the_check_finds_missing_and_foreign_objects(built: Distribution, folder: Path) -> None:
    other = Distribution(Path(shutil.copy(built.sdist, folder)), folder / built.wheel.name)
    with zipfile.ZipFile(built.wheel) as whole, zipfile.ZipFile(other.wheel, "w") as changed:
        for name in whole.namelist():
            if name != "s3torchconnector/py.typed":
                changed.writestr(name, whole.read(name))
        changed.writestr("tests/conftest.py", "")
    assert dist.check(other) == [
        "s3torchconnector/py.typed is not in the wheel",
        "tests/conftest.py does not belong into a wheel",
    ]
    assert dist.differences(built, other) == [f"{built.wheel.name} is another file when it is built again"]


@pytest.mark.slow
def test_the_tests_run_from_the_sdist(built: Distribution, folder: Path) -> None:
    with tarfile.open(built.sdist) as archive:
        archive.extractall(folder / "sdist", filter="data")
    [unpacked] = (folder / "sdist").iterdir()
    environment = {**os.environ, "PYTHONPATH": str(unpacked / "src")}
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    collected = run([*pytest_, "--collect-only", "-m", ""], _SECONDS, env=environment, cwd=unpacked)
    assert collected.returncode == 0, collected.stdout[-2000:]
    some = ["docs/test_links.py", "test_sizes.py", "test_config.py", "reading/test_file_formats.py"]
    done = run([*pytest_, *(f"tests/{each}" for each in some)], _SECONDS, env=environment, cwd=unpacked)
    assert done.returncode == 0, done.stdout[-2000:]


class _Environment:
    """A virtual environment without any package but pip."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True)
        self._bin = folder / "bin"
        self._variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def install(self, requirement: str, constraints: Path) -> None:
        pip = [self._bin / "python", "-m", "pip", "install", "--quiet", "--no-cache-dir", "-c", constraints]
        done = run([*pip, requirement], _SECONDS, env=self._variables)
        assert done.returncode == 0, done.stderr[-2000:]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return run([self._bin / command[0], *command[1:]], 120.0, env=self._variables, cwd=self._bin.parent)


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(
    built: Distribution, folder: Path, s3_server: S3Server, bucket: str
) -> None:
    """With nothing but what it declares to need, from whatever index pip is configured to use."""
    constraints = folder / "constraints.txt"  # the PyTorch that all other tests have, which may be at hand
    constraints.write_text(f"torch=={version('torch').partition('+')[0]}\n")
    environment = _Environment(folder / "empty")
    environment.install(str(built.wheel), constraints)

    done = environment.run("python", "-c", _TEN_LINES, bucket, s3_server.endpoint)
    assert done.returncode == 0, done.stderr  # which has PyTorch's warning that there is no NumPy
    assert done.stdout.splitlines() == ["[0, 1, 2]", "step/.metadata"]

    listing = ["s3torch", "ls", f"s3://{bucket}/", "--endpoint-url", s3_server.endpoint]
    done = environment.run(*listing)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "s3torch needs the package typer. From the checkout, run: pip install '.[cli]'\n"
    done = environment.run("python", "-c", "import s3torchconnector.lightning")
    assert "pip install '.[lightning]'" in done.stderr

    environment.install(f"{built.wheel}[cli]", constraints)
    done = environment.run(*listing)
    assert (done.returncode, done.stderr) == (0, "")
    assert "model.pt" in done.stdout
