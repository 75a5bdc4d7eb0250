"""What `make bench` writes of what was measured, also where there is nothing to compare with."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import plot, report
from benchmarks.cases import BY_NAME, OURS, PEER
from benchmarks.results import Row
from benchmarks.runner import Sample

_ABOUT = {"cores": 2, "cpu": "c", "system": "s", "python": "3", "torch": "2", "date": "d", "runs": 1}


def _row(name: str, **speeds: float) -> Row:
    """A row in which each contender has moved so many bytes in a second."""
    return Row(BY_NAME[name], {who: [Sample(1.0, speed, 0.5, 1.0)] for who, speed in speeds.items()})


@pytest.mark.parametrize("alone", [True, False])
def test_a_row_without_a_peer_has_a_line_and_no_bar(tmp_path: Path, alone: bool) -> None:
    rows = [_row("manager-save", **{OURS: 2e9})]
    if not alone:
        rows.append(_row("torch-save", **{OURS: 2e9, PEER: 1e9}))
    lines = report.markdown(rows, 2**30, _ABOUT).splitlines()
    assert lines[2].startswith("| S3CheckpointManager.save of 1 GiB, 25 ms a request | 2.00 GB/s | - | - | - |")
    assert alone or "| 2.0x |" in lines[3]
    assert alone or "2.5x 1.5.0: **not met**" in lines[3]
    path = tmp_path / "plot.png"
    assert plot.draw(rows, 2**30, path) is not alone
    assert path.exists() is not alone
