"""The picture of docs/architecture.md: which way bytes go between a program and S3.

    python -m website.architecture_figure

writes docs/images/architecture.svg. Its background is opaque, so that it looks the same on light and dark pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap
from xml.sax.saxutils import escape

from website.pages import ROOT

PICTURE = ROOT / "docs/images/architecture.svg"

_INK, _REQUEST, _READ, _WRITTEN, _SHARED = "#1f2328", "#6e7781", "#1f6feb", "#bc4c00", "#57606a"
_TINTS = {_READ: "#eaf2ff", _WRITTEN: "#fff1e5", _SHARED: "#f3f5f7"}
_CHARACTER = 7.6  # pixels, on average, in the widest of the fonts
_LINE = 19

_HEAD = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 690" width="700" height="690" role="img">
<title>Which way bytes go between a program and S3</title>
<style>
text {{ font: 14px system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; fill: {_INK} }}
.title {{ font-weight: bold; font-size: 15px }}
</style>
<rect width="700" height="690" rx="8" fill="#ffffff"/>"""


@dataclass(frozen=True)
class Box:
    """A rectangle with a title, and a text that is wrapped to its width."""

    x: int
    y: int
    width: int
    height: int
    color: str
    title: str
    text: str

    def svg(self) -> str:
        """Its frame, and its lines around the middle."""
        lines = wrap(self.text, int((self.width - 14) / _CHARACTER))
        first = self.y + (self.height - _LINE * len(lines)) / 2 + 5
        frame = f'x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="8"'
        drawn = [
            f'<rect {frame} fill="{_TINTS[self.color]}" stroke="{self.color}"/>',
            self._line(first, self.title, True),
        ]
        return "\n".join(drawn + [self._line(first + _LINE * row, line) for row, line in enumerate(lines, 1)])

    def _line(self, y: float, text: str, title: bool = False) -> str:
        kind = f' class="title" style="fill: {self.color}"' if title else ""
        return f'<text x="{self.x + self.width / 2:g}" y="{y:g}" text-anchor="middle"{kind}>{escape(text)}</text>'


_BOXES = (
    Box(20, 48, 450, 64, _READ, "Your program", "takes samples, or reads a file, as torch.load does"),
    Box(20, 156, 300, 64, _READ, "Dataset", "opens objects before you ask for one"),
    Box(20, 264, 450, 64, _READ, "Reader", "asks for ranges of one object, and checks what arrives"),
    Box(20, 372, 215, 84, _READ, "One thread", "small objects: many requests at the same time"),
    Box(255, 372, 215, 84, _READ, "Many threads", "large objects: each part is received in place"),
    Box(510, 48, 170, 64, _WRITTEN, "Your program", "as torch.save does"),
    Box(510, 156, 170, 172, _WRITTEN, "Writer", "cuts what is written into parts; the program goes on meanwhile"),
    Box(510, 372, 170, 84, _WRITTEN, "Many threads", "upload the parts"),
    Box(
        20,
        500,
        660,
        64,
        _SHARED,
        "Requests",
        "are signed, tried again after an error, and sent on connections that stay open",
    ),
    Box(20, 608, 660, 40, _SHARED, "S3", ""),
)
_ROWS = ((112, 156), (220, 264), (328, 372), (456, 500), (564, 608))  # the gaps between the boxes


def svg() -> str:
    """The picture as text."""
    first, second, third, fourth, last = _ROWS
    reads = [(165, first), (165, second), (390, (first[0], second[1]))]
    reads += [(x, gap) for gap in (third, fourth) for x in (127, 362)] + [(245, last)]
    writes = [_arrow(595, *gap, _WRITTEN) for gap in (first, third, fourth, last)]
    return "\n".join(
        [_HEAD, _words(), *(_read(*each) for each in reads), *writes, *(box.svg() for box in _BOXES), "</svg>\n"]
    )


def _read(x: int, gap: tuple[int, int]) -> str:
    """A request down, and bytes back."""
    upper, lower = gap
    return "\n".join([_arrow(x - 12, upper, lower, _REQUEST), _arrow(x + 12, lower, upper, _READ)])


def _arrow(x: int, start: int, end: int, color: str) -> str:
    """From one y to another: thin and dashed for requests, which have hardly any bytes."""
    to = 1 if end > start else -1
    half, line = (4, 'stroke-width="1.5" stroke-dasharray="5 4"') if color == _REQUEST else (8, 'stroke-width="5"')
    tip, base = end - 3 * to, end - (3 + 2 * half) * to
    shaft = f'<line x1="{x}" y1="{start + 3 * to}" x2="{x}" y2="{base}" stroke="{color}" {line}/>'
    return f'{shaft}\n<polygon points="{x},{tip} {x - half},{base} {x + half},{base}" fill="{color}"/>'


def _words() -> str:
    """The labels for reading and writing, and the meaning of the arrows."""
    words = [(20, 32, "title", _READ, "Reading"), (510, 32, "title", _WRITTEN, "Writing")]
    words += [(40, 674, "", _INK, "requests"), (160, 674, "", _INK, "bytes that are read")]
    words += [(350, 674, "", _INK, "bytes that are written")]
    arrows = [(28, _REQUEST), (146, _READ), (336, _WRITTEN)]
    return "\n".join(
        [
            f'<text x="{x}" y="{y}" class="{kind}" style="fill: {color}">{text}</text>'
            for x, y, kind, color, text in words
        ]
        + [_arrow(x, 684, 656, color) for x, color in arrows]
    )


if __name__ == "__main__":
    PICTURE.write_text(svg(), encoding="utf-8")
    print(f"{PICTURE.relative_to(ROOT)} is written: look at it before you commit it")
