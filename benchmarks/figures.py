"""`python -m benchmarks.figures`: put what the last whole run found into the documents.

A passage is between `<!-- figures:NAME -->` and `<!-- /figures -->`, each on a separate line; passages.py says which
names there are. With `--check` nothing is written. Instead, each passage that is not what the results say is an error,
and so is each speed that was written into the README or a guide by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from benchmarks import handwritten, plot, record
from benchmarks.objects import root
from benchmarks.passages import PassageError, passage
from benchmarks.record import RecordError, Results

RESULTS, PLOT = Path("benchmarks/results/latest.json"), Path("docs/images/benchmark.png")
PLACES = {"README.md": "summary", "docs/performance.md": "table", "docs/internals/goals.md": "goals"}
_RUN = "run: make figures"
_OPEN, _CLOSE = re.compile(r"<!-- figures:(.+?) -->"), "<!-- /figures -->"
_HAND = "a speed written by hand"
_HINT = f"""A speed comes from the results: put the lines
  <!-- figures:rows NAME ... -->
  {_CLOSE}
in its place, with names of `make bench`'s rows, and run: make figures
If a figure is no measurement, put {handwritten.EXCUSE} on its line."""
_END = "\n"  # after the last line of a document; no line is that


def write(folder: Path) -> list[str]:
    """Bring all passages below `folder` and the plot up to date; returns the paths of what changed.

    A plot that shows these results already is kept as it is, since other versions of matplotlib draw other bytes.

    Raises:
        RecordError: there are no results.
        PassageError: a marker is wrong.
    """
    results, changed = record.read(folder / RESULTS), []
    for path in _documents(folder):
        text = path.read_text(encoding="utf-8")
        fresh = filled(text, results, str(path.relative_to(folder)))
        if fresh != text:
            path.write_text(fresh, encoding="utf-8")
            changed.append(str(path.relative_to(folder)))
    source = _digest(folder / RESULTS)
    if _drawn_from(folder / PLOT) != source and plot.draw(results, folder / PLOT, plot.ROWS, source):
        changed.append(str(PLOT))
    return changed


def check(folder: Path) -> list[str]:
    """The problems below `folder`, one line each; empty if all is well."""
    try:
        results = record.read(folder / RESULTS)
    except RecordError as error:
        return [str(error)]
    faults = []
    for path in _documents(folder):
        faults += _faults(path.read_text(encoding="utf-8"), results, str(path.relative_to(folder)))
    faults += [f"{name}: no such file; it holds a passage" for name in PLACES if not (folder / name).exists()]
    if _drawn_from(folder / PLOT) != _digest(folder / RESULTS):
        faults.append(f"{PLOT}: not drawn from {RESULTS}; {_RUN}")
    return faults


def filled(text: str, results: Results, document: str) -> str:
    """`text` with each passage as the results have it.

    Raises:
        PassageError: a marker is wrong; the text says which, by `document` and line.
    """
    lines, fresh, past = text.split("\n"), list[str](), 0
    for span in _spans(lines, document):
        fresh += [*lines[past : span.opening + 1], *span.passage(results).split("\n")]
        past = span.closing
    return "\n".join([*fresh, *lines[past:]])


@dataclass(frozen=True)
class _Span:
    """A pair of markers in a document, by the indices of their lines."""

    document: str
    name: str
    opening: int
    closing: int

    def passage(self, results: Results) -> str:
        try:
            return passage(self.name, results)
        except PassageError as error:
            raise PassageError(f"{self.document}:{self.opening + 1}: {error}") from None


def _spans(lines: list[str], document: str) -> list[_Span]:
    spans: list[_Span] = []
    opened: tuple[int, str] | None = None
    for number, line in enumerate([*lines, _END]):
        marker = _OPEN.fullmatch(line.strip())
        if opened and (marker or line == _END):
            raise PassageError(f"{document}:{opened[0] + 1}: no {_CLOSE} after <!-- figures:{opened[1]} -->")
        if marker:
            opened = number, marker[1]
        elif line.strip() == _CLOSE:
            if opened is None:
                raise PassageError(f"{document}:{number + 1}: {_CLOSE} without a marker before it")
            spans.append(_Span(document, opened[1], opened[0], number))
            opened = None
    return spans


def _faults(text: str, results: Results, document: str) -> list[str]:
    lines = text.split("\n")
    try:
        spans = _spans(lines, document)
        stale = [span for span in spans if lines[span.opening + 1 : span.closing] != span.passage(results).split("\n")]
    except PassageError as error:
        return [str(error)]
    faults = [f"{document}:{span.opening + 1}: {span.name} is not what {RESULTS} says; {_RUN}" for span in stale]
    needed = PLACES.get(document)
    if needed and needed not in [span.name for span in spans]:
        faults.append(f"{document}: lacks the passage <!-- figures:{needed} --> ... {_CLOSE}")
    if document == "README.md" or document.startswith("docs/guide/"):
        faults += _by_hand(lines, spans, document)
    return faults


def _by_hand(lines: list[str], spans: list[_Span], document: str) -> list[str]:
    generated = {number for span in spans for number in range(span.opening, span.closing + 1)}
    text = "\n".join("" if number in generated else line for number, line in enumerate(lines))
    return [f"{document}:{line}: {_HAND}: {words}" for line, words in handwritten.speeds(text)]


def _documents(folder: Path) -> list[Path]:
    return [folder / "README.md", *sorted((folder / "docs").rglob("*.md"))]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _drawn_from(path: Path) -> str | None:
    """The digest of the results that a plot shows."""
    if not path.exists():
        return None
    with Image.open(path) as image:
        source = image.info.get("Source")
    return str(source) if source else None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figures", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something is stale or by hand")
    if parser.parse_args().check:
        faults = check(root())
        if faults:
            hint = [_HINT] if any(_HAND in fault for fault in faults) else []
            sys.exit("\n".join([*faults, *hint]))
        return
    try:
        changed = write(root())
    except (PassageError, RecordError) as error:
        sys.exit(str(error))
    print(f"written: {', '.join(changed)}" if changed else "nothing to change")


if __name__ == "__main__":
    main()
