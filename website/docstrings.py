"""How docstrings become Markdown: an extension of Griffe, which reads the source for mkdocstrings, and runs nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import griffe

from s3torchconnector import _dataset_parameters

REFERENCE = Path(__file__).parent / "reference"

_SECTION = re.compile(r"^(?:Args|Attributes|Raises):\n(?:(?: .*)?\n)*(?: .*)?", re.MULTILINE)
_TOGETHER = re.compile(r"^    (\w+(?:, \w+)+): (.*(?:\n {5,}.*)*)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Docstrings in the form that Griffe and Markdown know, and classes with all their public members."""

    def __init__(self) -> None:
        self._documented = documented()

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            elsewhere = {name: path for name, path in self._documented.items() if name not in obj.path.split(".")}
            obj.docstring.value = to_markdown(obj.docstring.value, elsewhere)

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Called when a package is loaded with everything in it."""
        for kind in _classes(pkg):
            if not kind.name.startswith("_"):
                _show_private_bases(kind)


def documented() -> dict[str, str]:
    """The names that the reference describes, and what each is written after ``:::`` there."""
    pages = "\n".join(path.read_text(encoding="utf-8") for path in REFERENCE.glob("*.md"))
    return {path.rpartition(".")[2]: path for path in re.findall(r"^::: (\S+)$", pages, re.MULTILINE)}


def to_markdown(docstring: str, documented: Mapping[str, str]) -> str:
    """The text of a docstring, as Griffe's parser of the Google style and Markdown understand it.

    Names of ``documented`` become links to what describes them.
    """
    text = _SECTION.sub(
        lambda section: _TOGETHER.sub(_one_by_one, section[0]), _dataset_parameters.described(docstring)
    )
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    text = re.sub(r"(?<=\S)::$", ":", re.sub(r"^::\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE)
    return re.sub(r"``(\w+)``", lambda name: _linked(name[1], documented), text)


def _linked(name: str, documented: Mapping[str, str]) -> str:
    return f"[`{name}`][{documented[name]}]" if name in documented else f"`{name}`"


def _one_by_one(item: re.Match[str]) -> str:
    """Names that share a description, with one for each."""
    return "\n".join(f"    {name}: {item[2]}" for name in item[1].split(", "))


def _classes(module: griffe.Module) -> Iterator[griffe.Class]:
    for member in list(module.members.values()):
        if isinstance(member, griffe.Module):
            yield from _classes(member)
        elif isinstance(member, griffe.Class):
            yield member


def _show_private_bases(kind: griffe.Class) -> None:
    """Let a class have what it inherits from classes that are not public, as if it stood in its own body."""
    for base in kind.mro():
        if base.name.startswith("_") and base.package is kind.package:
            for name, member in base.members.items():
                if name not in kind.members and not name.startswith("_"):
                    kind.set_member(name, griffe.Alias(name, member))
    kind.bases = [base for base in kind.bases if not str(base).startswith("_")]
