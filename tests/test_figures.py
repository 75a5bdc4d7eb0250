"""No speed in the README or a guide is written by hand: `python -m benchmarks.figures` takes it from the results."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from benchmarks import figures, handwritten
from benchmarks.cases import LIMIT, OURS, PEER, RANGED
from benchmarks.passages import PassageError, passage
from benchmarks.record import Contender, Judged, Record, Results

_MACHINE = {
    "date": "2026-11-29T01:02+00:00",
    "cores": 2,
    "memory_gib": 8,
    "cpu": "AMD EPYC",
    "system": "Linux 6.18 x86_64",
    "python": "3.11.7",
    "torch": "2.13.0",
    "peer": "1.5.0",
    "runs": 3,
}
_LOAD = Record(
    "torch-load",
    "torch.load of 1 GiB",
    "S3-shaped",
    "bytes",
    (Judged("≥ 5x 1.5.0", "5.41x", True), Judged("≥ 100% of limit", "94.1%", False)),
    {PEER: 5.41, RANGED: 2.0, LIMIT: 0.941},
    {
        OURS: Contender(1.5e9, (1.4e9, 1.6e9), 0.81, 1152.4),
        PEER: Contender(0.27e9, (0.26e9, 0.28e9), 4.47, 2521),
        RANGED: Contender(0.75e9),
        LIMIT: Contender(1.58e9, (1.5e9, 1.6e9)),
    },
)
_MANAGER = Record(
    "manager-save", "S3CheckpointManager.save of 1 GiB", "25 ms a request", "bytes", (), {}, {OURS: Contender(2.5e9)}
)
_STARTUP = Record(
    "startup",
    "fresh process to the first object's bytes",
    "plain",
    "starts",
    (Judged("≥ 1x 1.5.0", "1.05x", True),),
    {PEER: 1.05},
    {OURS: Contender(50, (40, 62.5), 0.021), PEER: Contender(47.6, (45, 50), 0.023)},
)
_RESULTS = Results(_MACHINE, (_LOAD, _MANAGER, _STARTUP))
_SUMMARY = """\
|  | this version | 1.5.0 | times 1.5.0 |
|---|---|---|---|
| torch.load of 1 GiB | 1.50 GB/s | 0.27 GB/s | 5.4x |

Medians of 3 runs beside version 1.5.0, 2026-11-29, on 2 cores, against local servers with S3's delays."""
_ROWS = """\
|  | this version | 1.5.0 | times 1.5.0 |
|---|---|---|---|
| S3CheckpointManager.save of 1 GiB, 25 ms a request | 2.50 GB/s | - | - |
| torch.load of 1 GiB, S3-shaped | 1.50 GB/s | 0.27 GB/s | 5.4x |"""
_TABLE = """\
| row | work | this version | 1.5.0 | limit | times 1.5.0 | of limit | CPU | memory |
|---|---|---|---|---|---|---|---|---|
| `torch-load` | torch.load of 1 GiB, S3-shaped | 1.50 GB/s<br>1.40-1.60 \
| 0.27 GB/s<br>0.26-0.28<br>(ranged 0.75 GB/s) \
| 1.58 GB/s<br>1.50-1.60 | 5.4x | 94% | 0.81 / 4.47 s/GiB | 1,152 / 2,521 MiB |
| `manager-save` | S3CheckpointManager.save of 1 GiB, 25 ms a request | 2.50 GB/s | - | - | - | - | - / - s/GiB \
| - / - MiB |
| `startup` | fresh process to the first object's bytes, plain | 20 ms<br>16-25 | 21 ms<br>20-22 | - | 1.05x | - \
| 21 / 23 ms | - / - MiB |
"""
_GOALS = """\
Not met, 1 of 3: `torch-load` (≥ 100% of limit: 94.1%).

| row | work | goal | measured |  |
|---|---|---|---|---|
| `torch-load` | torch.load of 1 GiB, S3-shaped | ≥ 5x 1.5.0 | 5.41x | met |
| `torch-load` | torch.load of 1 GiB, S3-shaped | ≥ 100% of limit | 94.1% | **not met** |
| `startup` | fresh process to the first object's bytes, plain | ≥ 1x 1.5.0 | 1.05x | met |

Measured on 2 cores (AMD EPYC), 8 GiB of memory, Linux 6.18 x86_64, Python 3.11.7, PyTorch 2.13.0, 2026-11-29."""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder with results and with documents whose passages are empty."""
    _RESULTS.write(tmp_path / figures.RESULTS)
    for name, kind in figures.PLACES.items():
        _write(tmp_path / name, f"# Title\n\n<!-- figures:{kind} -->\n<!-- /figures -->\n\nEnd.\n")
    return tmp_path


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_passages_are_exactly_these() -> None:
    assert passage("summary", _RESULTS) == _SUMMARY
    assert passage("rows manager-save torch-load", _RESULTS) == _ROWS
    assert passage("goals", _RESULTS) == _GOALS
    table = passage("table", _RESULTS)
    assert table.startswith(_TABLE)
    assert table.endswith("\n" + _GOALS.splitlines()[-1].replace("Measured on", "Machine:"))


def test_stale_passages_and_plots_are_found_and_written(repository: Path) -> None:
    stale = [
        "README.md:3: summary is not what benchmarks/results/latest.json says; run: make figures",
        "docs/internals/goals.md:3: goals is not what benchmarks/results/latest.json says; run: make figures",
        "docs/performance.md:3: table is not what benchmarks/results/latest.json says; run: make figures",
        "docs/images/benchmark.png: not drawn from benchmarks/results/latest.json; run: make figures",
    ]
    assert figures.check(repository) == stale
    assert sorted(figures.write(repository)) == sorted([*figures.PLACES, str(figures.PLOT)])
    assert figures.check(repository) == []
    assert figures.write(repository) == []
    expected = f"# Title\n\n<!-- figures:summary -->\n{_SUMMARY}\n<!-- /figures -->\n\nEnd.\n"
    assert (repository / "README.md").read_text(encoding="utf-8") == expected

    Results({**_MACHINE, "runs": 5}, (_LOAD,)).write(repository / figures.RESULTS)
    assert figures.check(repository) == stale
    assert str(figures.PLOT) in figures.write(repository)
    assert figures.check(repository) == []


def test_the_plot_is_as_wide_as_a_readme(repository: Path) -> None:
    figures.write(repository)
    with Image.open(repository / figures.PLOT) as image:
        assert image.width == 2 * 840
        corner = image.convert("RGBA").getpixel((0, 0))
    assert corner == (255, 255, 255, 255)  # opaque, so that its dark text can be read on a dark page


def test_a_passage_in_a_guide_is_kept_up_to_date(repository: Path) -> None:
    figures.write(repository)
    guide = repository / "docs" / "guide" / "checkpoints.md"
    _write(guide, "a\n<!-- figures:rows manager-save torch-load -->\nold\n<!-- /figures -->\nb")
    [fault] = figures.check(repository)
    assert fault.startswith("docs/guide/checkpoints.md:2: rows manager-save torch-load is not what")
    assert figures.write(repository) == ["docs/guide/checkpoints.md"]
    expected = f"a\n<!-- figures:rows manager-save torch-load -->\n{_ROWS}\n<!-- /figures -->\nb"
    assert guide.read_text(encoding="utf-8") == expected


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("<!-- figures:summary -->\n", "README.md:1: no <!-- /figures --> after <!-- figures:summary -->"),
        ("\n<!-- /figures -->", "README.md:2: <!-- /figures --> without a marker before it"),
        (
            "<!-- figures:summary -->\n<!-- figures:goals -->\n<!-- /figures -->",
            "README.md:1: no <!-- /figures --> after <!-- figures:summary -->",
        ),
        (
            "<!-- figures:sumary -->\n<!-- /figures -->",
            "README.md:1: no passage 'sumary'; "
            "there are: summary, table, goals, litdata, and `rows` with names of rows",
        ),
        (
            "\n<!-- figures:rows load startup -->\n<!-- /figures -->",
            "README.md:2: no row load in the results; there are: torch-load, manager-save, startup",
        ),
        ("No passage.", "README.md: lacks the passage <!-- figures:summary --> ... <!-- /figures -->"),
    ],
)
def test_wrong_markers_are_named(repository: Path, text: str, fault: str) -> None:
    figures.write(repository)
    _write(repository / "README.md", text)
    assert figures.check(repository) == [fault]
    if "lacks" not in fault:
        with pytest.raises(PassageError) as raised:
            figures.write(repository)
        assert str(raised.value) == fault


def test_missing_results_and_documents_are_named(repository: Path) -> None:
    figures.write(repository)
    (repository / "docs/internals/goals.md").unlink()
    assert figures.check(repository) == ["docs/internals/goals.md: no such file; it holds a passage"]
    (repository / figures.RESULTS).unlink()
    [fault] = figures.check(repository)
    assert "latest.json: not the results of a run" in fault


def test_a_speed_by_hand_is_found_outside_of_passages(repository: Path) -> None:
    figures.write(repository)
    readme = repository / "README.md"
    text = readme.read_text(encoding="utf-8")
    _write(readme, text + "It loads\nat 2.58\nGB/s.\n")
    _write(repository / "docs/guide/datasets.md", "It is 5x faster.\n")
    _write(repository / "docs/internals/notes.md", "It was 5x faster on that day.\n")
    assert figures.check(repository) == [
        f"README.md:{text.count(chr(10)) + 2}: a speed written by hand: 2.58 GB/s",
        "docs/guide/datasets.md:1: a speed written by hand: 5x",
    ]


@pytest.mark.parametrize(
    "words",
    [
        *(
            "2.58 GB/s",
            "300 MiB per second",
            "10 Gbit/s",
            "5,524 objects/s",
            "40 small objects a second",
            "9,773 keys/s",
        ),
        *("8.4x", "5 times as fast", "ten times faster", "3 times 1.5.0", "twice the speed", "half as fast"),
        *("8.4 \u00d7", "20 % faster", "94% of the limit"),
    ],
)
def test_speeds_are_found(words: str) -> None:
    assert list(handwritten.speeds(f"First.\n\nIt is {words}, and more.")) == [(3, words)]


@pytest.mark.parametrize(
    "text",
    [
        "| `throughput_target_gbps` | `10.0` | Gbit/s | throughput to aim for |",
        "If your node's network is faster than 10 Gbit/s, say so.",
        "Set `throughput_target_gbps=100` for 100 Gbit/s.",
        "S3 sends about 90 MB/s on one connection.",
        "S3 admits 5,500 GET requests per second for each prefix.",
        "A request is tried 10 times; the part size doubles, to twice the size; 3 times the memory.",
        "An image of 8x8 or 640 x 480 pixels, on 8 x H100, from address 0x7f, in version 1.5.0.",
        "10 % of the objects, 128 MiB, 30 s, 20 ms, 64 KiB to 6 MiB.",
        f"The address 10x. {handwritten.EXCUSE}",
    ],
)
def test_settings_and_facts_about_others_are_not_speeds(text: str) -> None:
    assert list(handwritten.speeds(text)) == []


def test_an_excuse_holds_for_its_own_sentence() -> None:
    text = "It reads 20 Gbit/s. The network brings 25 Gbit/s. Then 30 Gbit/s."
    assert [words for _, words in handwritten.speeds(text)] == ["20 Gbit/s", "30 Gbit/s"]
