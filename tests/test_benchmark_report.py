"""What `make bench` writes of what was measured, also where there is nothing to compare with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import litdata, passages, plot, record, training
from benchmarks.cases import BY_NAME, LITDATA, OURS, PEER
from benchmarks.environments import EnvironmentFault
from benchmarks.job import Job
from benchmarks.meter import Meter
from benchmarks.objects import mark
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
    "litdata": "0.2.76",
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


def test_goals_are_compared_with_the_measured_values() -> None:
    met, missed = _row("torch-save", **{OURS: 3e9, PEER: 1e9}), _row("torch-save", **{OURS: 2.4e9, PEER: 1e9})
    assert passages.goals(_results(met)).startswith("All goals are met.\n")
    lines = passages.goals(_results(met, missed)).splitlines()
    assert lines[0] == "Not met, 1 of 2: `torch-save` (≥ 2.5x 1.5.0: 2.40x)."
    assert lines[4:6] == [
        "| `torch-save` | torch.save of 1 GiB, 25 ms a request | ≥ 2.5x 1.5.0 | 3.00x | met |",
        "| `torch-save` | torch.save of 1 GiB, 25 ms a request | ≥ 2.5x 1.5.0 | 2.40x | **not met** |",
    ]


def test_litdata_has_its_own_table_and_a_line_in_the_wide_one() -> None:
    results = _results(_row("shuffled-raw", **{OURS: 4e3, LITDATA: 2.5e3}), _row("manager-save", **{OURS: 2e9}))
    assert passages.passage("litdata", results).splitlines() == [
        "|  | this version | litdata 0.2.76 | times litdata | CPU |",
        "|---|---|---|---|---|",
        "| 8,192 shuffled objects of 110 KiB, batches of 64, 4 persistent workers, S3-shaped "
        "| 4,000 objects/s<br>4,000-4,000 | 2,500 objects/s<br>2,500-2,500 | 1.60x | 0.12 / 0.20 ms each |",
        "",
        "Medians of 1 runs, 2026-11-29, on 2 cores. CPU: this version / litdata.",
    ]
    wide = passages.table(results)
    assert "| 4,000 objects/s<br>4,000-4,000 | -<br>(litdata 2,500 objects/s) | - | - | - |" in wide
    assert '"litdata" is the StreamingRawDataset of that package.' in wide
    assert "| ≥ 1x litdata | 1.60x | met |" in passages.goals(results)


def test_without_litdata_its_passage_is_a_sentence() -> None:
    results = _results(_row("manager-save", **{OURS: 2e9}))
    assert passages.passage("litdata", results) == "The last whole run was made without litdata."


def test_a_row_is_left_out_with_a_line_if_litdata_cannot_be_installed(tmp_path: Path) -> None:
    stream, raw = BY_NAME["stream"], BY_NAME["shuffled-raw"]
    no_folder = tmp_path / "file"
    no_folder.touch()
    assert litdata.beside((stream,), no_folder) == ((stream,), None, "")
    cases, python, line = litdata.beside((stream, raw), no_folder)
    assert (cases, python) == ((stream,), None)
    assert line.startswith(f"left out: shuffled-raw: {no_folder}: no virtual environment can be made here: ")
    with pytest.raises(EnvironmentFault, match="no virtual environment can be made here"):
        litdata.beside((raw,), no_folder)


_JOB = Job(bucket="b", size=0, small_size=3, objects=102, copy="")
_IN_ORDER = [(3, mark(number)) for number in range(102)]
_ODD_FIRST = [*_IN_ORDER[1::2], *_IN_ORDER[::2]]


def test_an_epoch_counts_only_if_it_is_whole_and_in_another_order() -> None:
    meter = Meter()
    assert training.second_epoch(_JOB, meter, _Epochs(_ODD_FIRST, _ODD_FIRST[::-1])) == 102
    assert meter.seconds > 0
    for wrong in (_ODD_FIRST[1:], [*_ODD_FIRST[1:], _ODD_FIRST[1]], [*_ODD_FIRST[1:], (2, _ODD_FIRST[0][1])]):
        for epochs in ((wrong, _ODD_FIRST), (_ODD_FIRST, wrong)):
            with pytest.raises(AssertionError, match="or not each of them once"):
                training.second_epoch(_JOB, Meter(), _Epochs(*epochs))
    for same in ((_ODD_FIRST, _ODD_FIRST), (_ODD_FIRST, _IN_ORDER)):
        with pytest.raises(AssertionError, match="in order, or twice in the same"):
            training.second_epoch(_JOB, Meter(), _Epochs(*same))


class _Epochs:
    """A loader whose epochs are these, in batches of 10."""

    def __init__(self, *epochs: list[tuple[int, int]]) -> None:
        self._epochs = iter(epochs)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = next(self._epochs)
        return iter([epoch[start : start + 10] for start in range(0, len(epoch), 10)])


def test_stored_bytes_are_read_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "results" / "latest.json"
    results = _results(_row("manager-save", **{OURS: 2e9}), _row("torch-save", **{OURS: 2e9, PEER: 1e9}))
    results.write(path)
    assert record.read(path) == results
    assert path.read_text().count('     { "seconds": 1.0, ') == 3  # a sample a line


@pytest.mark.parametrize("text", [None, "", "{}", '{"machine": {}, "rows": [{"name": "x"}]}'])
def test_a_file_that_is_not_a_result_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "latest.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(record.RecordError, match=r"latest\.json: not the results of a run .*`make bench` writes them"):
        record.read(path)
