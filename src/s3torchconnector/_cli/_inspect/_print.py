"""A description for a person: facts, a table of tensors, totals."""

from __future__ import annotations

from typing import Any

from s3torchconnector._cli._checkpoints._states import print_steps
from s3torchconnector._cli._inspect._description import Description, Tensor, Total
from s3torchconnector._cli._output import print_line, print_table, printable, readable

_MOST_PROBLEMS = 20
_NAMES = {"bytes_beyond_views": "stored beyond what tensors show of their storages"}


def print_description(found: Description, *, only_totals: bool) -> None:
    """Print it on standard output."""
    print_line(f"{printable(found.uri)}: {found.title}")
    if found.steps:
        print_steps(found.steps)
    for name, value in found.facts.items():
        if value and (name, value) != ("files", 1):
            print_line(f"  {_NAMES.get(name, name.replace('_', ' '))}: {_text(name, value)}")
    if found.tensors and not only_totals:
        print_line("")
        _print_tensors(found.tensors)
    if found.tensors:
        print_line("")
        rows = [*found.by_dtype().items(), ("total", found.total())]
        print_table("dtype", ">tensors", ">parameters", ">bytes", "", rows=[_row(*row) for row in rows])
    for problem in found.problems[:_MOST_PROBLEMS]:
        print_line(f"  problem: {printable(problem)}")


def _print_tensors(tensors: list[Tensor]) -> None:
    in_files = any(tensor.file is not None for tensor in tensors)
    are_same = any(tensor.same_as is not None for tensor in tensors)
    columns = ["name", "dtype", "shape", ">bytes"] + ["file"] * in_files + ["same as"] * are_same
    rows = [
        [tensor.name, tensor.dtype, _shape(tensor.shape), f"{tensor.bytes:,}"]
        + [tensor.file or ""] * in_files
        + [tensor.same_as or ""] * are_same
        for tensor in tensors
    ]
    print_table(*columns, rows=rows)


def _row(name: str, total: Total) -> list[str]:
    return [name, f"{total.tensors:,}", f"{total.parameters:,}", f"{total.bytes:,}", readable(total.bytes)]


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _text(name: str, value: Any) -> str:
    if name in ("size", "bytes_beyond_views"):
        return f"{value:,} bytes" + (f" ({readable(value)})" if value >= 1024 else "")
    if isinstance(value, dict):
        return ", ".join(f"{printable(str(key))}={printable(str(each))}" for key, each in value.items())
    if isinstance(value, list):
        return printable(", ".join(map(str, value[:10]))) + (f" and {len(value) - 10} more" if len(value) > 10 else "")
    return printable(str(value))
