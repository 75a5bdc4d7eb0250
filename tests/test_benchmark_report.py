"""What `make bench` writes of what was measured, also where there is nothing to compare with."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import passages, plot, record
from benchmarks.cases import BY_NAME, OURS, PEER
from benchmarks.record import Results
from benchmarks.results import Row
from benchmarks.runner import Sample

_MACHINE = {
    "cores": 2,
    "memory_gib": 8,
    "cpu": "c",
    "system": "s",
    "python": "3",
    "torch": "2",
    "date": "2026-11-29T01:02+00:00",
    "runs": 1,
    "peer": "1.5.0",
}


def _row(name: str, **speeds: float) -> Row:
    """A row in which each contender has moved so many bytes in a second."""
    return Row(BY_NAME[name], {who: [Sample(1.0, speed, 0.5, 1.0)] for who, speed in speeds.items()})


def _results(*rows: Row) -> Results:
    return Results(_MACHINE, tuple(row.record(2**30) for row in rows))


@pytest.mark.parametrize("alone", [True, False])
def test_a_row_without_a_peer_has_a_line_and_no_bar(tmp_path: Path, alone: bool) -> None:
    rows = [_row("manager-save", **{OURS: 2e9})]
    if not alone:
        rows.append(_row("torch-save", **{OURS: 2e9, PEER: 1e9}))
    results = _results(*rows)
    lines = passages.table(results).splitlines()
    heading = "| `manager-save` | S3CheckpointManager.save of 1 GiB, 25 ms a request |"
    assert lines[2].startswith(f"{heading} 2.00 GB/s<br>2.00-2.00 | - | - | - |")
    assert alone or "| 2.0x |" in lines[3]
    path = tmp_path / "plot.png"
    assert plot.draw(results, path) is not alone
    assert path.exists() is not alone


def test_goals_are_judged_beside_what_was_measured() -> None:
    met, missed = _row("torch-save", **{OURS: 3e9, PEER: 1e9}), _row("torch-save", **{OURS: 2.4e9, PEER: 1e9})
    assert passages.goals(_results(met)).startswith("All goals are met.\n")
    lines = passages.goals(_results(met, missed)).splitlines()
    assert lines[0] == "Not met, 1 of 2: `torch-save` (≥ 2.5x 1.5.0: 2.40x)."
    assert lines[4:6] == [
        "| `torch-save` | torch.save of 1 GiB, 25 ms a request | ≥ 2.5x 1.5.0 | 3.00x | met |",
        "| `torch-save` | torch.save of 1 GiB, 25 ms a request | ≥ 2.5x 1.5.0 | 2.40x | **not met** |",
    ]


def test_what_is_stored_is_read_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "results" / "latest.json"
    results = _results(_row("manager-save", **{OURS: 2e9}), _row("torch-save", **{OURS: 2e9, PEER: 1e9}))
    results.write(path)
    assert record.read(path) == results
    assert path.read_text().count('     { "seconds": 1.0, ') == 3  # a sample a line


@pytest.mark.parametrize("text", [None, "", "{}", '{"machine": {}, "rows": [{"name": "x"}]}'])
def test_what_is_no_result_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "latest.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(record.RecordError, match=r"latest\.json: not the results of a run .*`make bench` writes them"):
        record.read(path)
