"""The public surface is exactly what ``public_surface.txt`` says, so that it changes on purpose only.

The file has every public module (no name of its path begins with an underscore), what its ``__all__`` exports, and the
public methods of the classes with their signatures. After an intended change, write it again, read the difference and
commit both:

    python -m tests.test_public_surface
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.public_modules import public_modules, public_names

_FILE = Path(__file__).with_name("public_surface.txt")
_COMMAND = "python -m tests.test_public_surface"


def surface() -> str:
    """The public surface as text: a paragraph for each module."""
    homes: dict[Any, str] = {}  # the first module that exports a class whose own module is not public
    return "\n\n".join("\n".join([module.__name__, *_names(module, homes)]) for module in public_modules()) + "\n"


def _names(module: ModuleType, homes: dict[Any, str]) -> Iterator[str]:
    public = {each.__name__ for each in public_modules()}
    for name, value in sorted(public_names(module).items()):
        if not inspect.isclass(value):
            yield f"    {name}: {type(value).__name__}"
            continue
        home = value.__module__ if value.__module__ in public else homes.setdefault(value, module.__name__)
        yield from [f"    {name}: see {home}"] if home != module.__name__ else _class(value)


def _class(kind: type) -> Iterator[str]:
    """What the class adds to its public bases."""
    bases = ", ".join(base.__name__ for base in kind.__bases__ if base is not object)
    yield f"    class {kind.__name__}({bases})" if bases else f"    class {kind.__name__}"
    fields = {*getattr(kind, "_fields", ()), *getattr(kind, "__dataclass_fields__", ())}
    added = {name: value for base in reversed(_own(kind)) for name, value in vars(base).items()}
    if "__init__" in added or fields:
        yield from _call("__init__", kind)
    if "__call__" in added and kind.__name__.endswith("Protocol"):
        yield from _call("__call__", added["__call__"])
    for name, value in sorted(added.items()):
        if name.startswith("_") or name in fields:
            continue
        if isinstance(value, property):
            yield f"        {name}: property"
        elif isinstance(value, classmethod | staticmethod):
            yield from _call(f"{type(value).__name__} {name}", value.__func__)
        elif inspect.isfunction(value):
            yield from _call(name, value)
        else:
            yield f"        {name}"


def _own(kind: type) -> list[type]:
    """The class, and the bases of this package that have no name of their own in public."""
    ours = [base for base in kind.__mro__ if base.__module__.startswith("s3torchconnector")]
    return [base for base in ours if base is kind or base.__name__.startswith("_")]


def _call(name: str, function: Any) -> Iterator[str]:
    """A signature: on one line if it fits, else with a line for each parameter."""
    found = inspect.signature(function)
    parameters = [text for text in _parameters(found) if text not in ("self", "cls")]
    returns = "" if found.return_annotation is found.empty else f" -> {_annotation(found.return_annotation)}"
    line = f"        {name}({', '.join(parameters)}){returns}"
    if len(line) <= 120:
        yield line
        return
    yield f"        {name}("
    yield from (f"            {text}," for text in parameters)
    yield f"        ){returns}"


def _parameters(signature: inspect.Signature) -> Iterator[str]:
    before = None
    for each in signature.parameters.values():
        if before is each.POSITIONAL_ONLY and each.kind is not before:
            yield "/"
        if each.kind is each.KEYWORD_ONLY and before not in (each.KEYWORD_ONLY, each.VAR_POSITIONAL):
            yield "*"
        before = each.kind
        stars = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
        annotation = "" if each.annotation is each.empty else f": {_annotation(each.annotation)}"
        default = "" if each.default is each.empty else f" = {_default(each.default)}"
        yield f"{stars}{each.name}{annotation}{default}"
    if before is inspect.Parameter.POSITIONAL_ONLY:
        yield "/"


def _annotation(annotation: Any) -> str:
    """As it is written in the source, also where Python has wrapped or evaluated it."""
    if isinstance(annotation, type) and annotation.__module__ == "builtins":
        return annotation.__name__
    return re.sub(r"\bs3torchconnector\.(\w+\.)*", "", str(getattr(annotation, "__forward_arg__", annotation)))


def _default(default: Any) -> str:
    if type(default).__module__.startswith("s3torchconnector"):
        return f"{type(default).__name__}(...)"
    return default.__name__ if inspect.isfunction(default) else repr(default)


@pytest.mark.parametrize("module", [pytest.param(module, id=module.__name__) for module in public_modules()])
def test_each_public_module_has_a_sorted_all(module: ModuleType) -> None:
    assert module.__all__ == sorted(module.__all__)


def test_the_public_surface_is_what_was_agreed() -> None:
    agreed, found = _FILE.read_text(encoding="utf-8"), surface()
    difference = "\n".join(
        difflib.unified_diff(agreed.splitlines(), found.splitlines(), _FILE.name, "this source", lineterm="", n=1)
    )
    assert not difference, f"the public surface has changed. If that is meant, run: {_COMMAND}\n{difference}"


@pytest.mark.parametrize(
    "expected",
    [
        "    class S3Writer(BufferedIOBase)\n        __init__(stream: PutObjectStream | S3Writer) -> None\n",
        "        read(size: int | None = None) -> bytes\n",
        "        classmethod from_prefix(\n            s3_uri: str,\n            *,\n            region: str,\n",
        "            checksum: str = 'when_supported',\n",
        "        region: property\n",
    ],
)
def test_the_file_has_names_parameters_and_defaults(expected: str) -> None:
    assert expected in _FILE.read_text(encoding="utf-8")


if __name__ == "__main__":
    _FILE.write_text(surface(), encoding="utf-8")
    print(f"{_FILE} is written: look at the difference before you commit it")
