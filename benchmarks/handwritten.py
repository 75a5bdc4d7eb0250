"""Finds speeds that were written into a document by hand. They are right on the day they are written, and then never
again.

What is found: a rate of data (`2.5 GB/s`, `40 objects a second`), and a ratio of speeds (`5x`, `twice as fast`, `20 %
faster`). What is not: settings and facts about others, if their sentence says so: the speed of a network or the setting
`throughput_target_gbps` in bits, and what a server sends on one connection; nor requests a second, which S3 documents.
Anything else that is no measurement has `<!-- not a measurement -->` on its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

EXCUSE = "<!-- not a measurement -->"

_NUMBER = r"(?<![\w.,])\d[\d.,]*"
_COUNT = rf"(?:{_NUMBER}|\b(?:two|three|four|five|six|seven|eight|nine|ten|twenty|fifty|hundred|dozens? of))"
_SECOND = r"\s*(?:/\s*s\b|ps\b|/\s*sec|\s(?:a|per|each)\s+second\b)"
_SPEED = (
    r"(?:as\s+(?:fast|quick|slow)|faster|slower|quicker|the\s+(?:speed|throughput|rate)|"
    r"(?:that|those|as\s+much\s+as)\s+of\s+1\.5|1\.5\.0|the\s+native)"
)
_BITS = re.compile(rf"{_NUMBER}\s*[KMGTkmgt]?(?:bits?|b){_SECOND}")
_BYTES = re.compile(rf"{_NUMBER}\s*(?:[KMGTkmgt]i?B|bytes){_SECOND}")
_THINGS = re.compile(rf"{_NUMBER}\s+(?:[a-z]+\s+)?(?:objects|keys|files|images|samples|batches){_SECOND}")
_RATIO = re.compile(
    rf"{_NUMBER}\s*[x\u00d7](?!\w)(?!\s*[\dA-Z])"
    rf"|{_COUNT}[\s-]+times\s+{_SPEED}"
    rf"|\b(?:twice|half)\s+{_SPEED}"
    rf"|{_NUMBER}\s*%\s+(?:faster|slower|quicker|of\s+the\s+limit)"
)
# A pattern, and what in the same sentence says that the figure is not a measured one.
_PATTERNS = (
    (_BITS, re.compile(r"throughput_target_gbps|\bnetworks?\b|\bNICs?\b")),
    (_BYTES, re.compile(r"\b(?:a|per|each|one)\s+connection\b")),
    (_THINGS, None),
    (_RATIO, None),
)
_SENTENCE = re.compile(r"[.!?]\s|\n\s*\n|\n\s*[|*#-]\s?")  # what separates sentences, paragraphs, rows and items


def speeds(text: str) -> Iterator[tuple[int, str]]:
    """Speeds in `text`, which has no generated passages in it: the line of each, from 1, and its words."""
    found: list[tuple[int, str]] = []
    for pattern, excuse in _PATTERNS:
        for match in pattern.finditer(text):
            if (excuse and excuse.search(_sentence(text, match))) or EXCUSE in _line(text, match):
                continue
            found.append((text.count("\n", 0, match.start()) + 1, " ".join(match[0].split())))
    yield from sorted(found)


def _sentence(text: str, match: re.Match[str]) -> str:
    start = max((each.end() for each in _SENTENCE.finditer(text, 0, match.start())), default=0)
    end = _SENTENCE.search(text, match.end())
    return text[start : end.start() if end else len(text)]


def _line(text: str, match: re.Match[str]) -> str:
    start, end = text.rfind("\n", 0, match.start()) + 1, text.find("\n", match.end())
    return text[start : end if end >= 0 else len(text)]
