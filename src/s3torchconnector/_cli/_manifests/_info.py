"""``s3torch manifest info``."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Annotated, Any

import typer

from s3torchconnector._cli._connection import Connection, connects
from s3torchconnector._cli._location import Object
from s3torchconnector._cli._output import (
    Json,
    iso_time,
    print_json,
    print_line,
    print_table,
    printable,
    readable,
)
from s3torchconnector._late_imports import no_fork
from s3torchconnector._plural import counted

if TYPE_CHECKING:
    from s3torchconnector._datasets._rows import Samples

_Largest = Annotated[int, typer.Option("--largest", min=0, help="How many of the largest samples to name.")]


@connects
def info(manifest: Object, *, largest: _Largest = 5, as_json: Json = False, connection: Connection) -> None:
    """Show what a manifest lists: samples, bytes, origin, fingerprint, columns, the largest. All of it is checked."""
    with no_fork:
        from s3torchconnector._cli._manifests._pinned import fetch
    with connection.opened() as client:
        samples = fetch(client, str(manifest))
    facts = {"uri": str(manifest), **facts_of(samples, largest)}
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)


def facts_of(samples: Samples, largest: int = 0) -> dict[str, Any]:
    """What there is to say of a manifest, for JSON."""
    header = samples.header
    of_samples = header.columns_of_samples
    numbers = heapq.nlargest(largest, range(len(samples)), key=samples.size)
    return {
        "samples": len(samples),
        "samples_are": "objects" if of_samples is None else of_samples.kind,
        "objects": header.samples,
        "total_bytes": samples.total_bytes,
        "buckets": list(header.buckets),
        "origin": list(header.origin),
        "created": iso_time(header.created),
        "archived": header.archived,
        "fingerprint": header.fingerprint,
        "size": len(samples.memory.view),
        "columns": {name: len(place) for name, place in header.columns().items() if place},
        "largest": [{"sample": samples.info(i).key, "bytes": samples.size(i)} for i in numbers],
    }


def print_facts(facts: dict[str, Any]) -> None:
    """Print what ``facts_of`` says, for a person."""
    print_line(f"{printable(facts['uri'])}: {counted(facts['samples'], 'sample')} ({facts['samples_are']})")
    rows = [
        ["bytes", f"{facts['total_bytes']:,} ({readable(facts['total_bytes'])})"],
        ["objects", f"{facts['objects']:,}, in {', '.join(facts['buckets'][:5]) or 'no bucket'}"],
        ["left out, archived", f"{facts['archived']:,}"],
        ["origin", ", ".join(facts["origin"][:5]) + (" and more" if len(facts["origin"]) > 5 else "")],
        ["created", facts["created"]],
        ["fingerprint", facts["fingerprint"]],
        ["size", f"{facts['size']:,} ({readable(facts['size'])})"],
        *([f"  {name}", f"{size:,}"] for name, size in facts["columns"].items()),
    ]
    print_table("", "", rows=rows)
    if facts["largest"]:
        print_line("")
        rows = [[f"{each['bytes']:,}", readable(each["bytes"]), each["sample"]] for each in facts["largest"]]
        print_table(">bytes", ">size", "largest", rows=rows)
