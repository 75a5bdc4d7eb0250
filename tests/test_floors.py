"""The versions that `pyproject.toml` declares are those that `make matrix` tries."""

from __future__ import annotations

import re

from tests import matrix
from tests.docs.pages import ROOT

_PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_floors_are_the_tested_versions() -> None:
    project = _PROJECT.partition("\ndev = [")[0]  # what development needs is not declared to users
    declared = dict(re.findall(r'"([\w-]+)>=([\d.]+)[",<]', project))
    tried = dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "requirements-floors.txt").read_text(), re.MULTILINE))
    assert {"torch", "botocore", "tqdm", "lightning", "awscrt"} <= declared.keys()
    assert {name: _numbers(tried.get(name, "0")) for name in declared} == {
        name: _numbers(version) for name, version in declared.items()
    }


def test_the_interpreters_are_the_tested_ones() -> None:
    classified = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', _PROJECT)
    assert tuple(classified) == matrix.VERSIONS
    assert f'requires-python = ">={matrix.VERSIONS[0]}"' in _PROJECT


def _numbers(version: str) -> list[int]:
    """``15`` and ``15.0.0`` are the same."""
    numbers = [int(number) for number in version.split(".")]
    return numbers + [0] * (3 - len(numbers))
