from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _short_pauses(short_pauses: None) -> None:
    """In every test here."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A save or load without a process group is what most of these tests are about; PyTorch warns of each."""
    for item in items:
        if "tests/dcp/" in item.nodeid:
            item.add_marker(pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning"))
