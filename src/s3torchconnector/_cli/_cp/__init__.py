"""``s3torch cp``: files and objects, single ones and trees, in all directions that have S3 at an end."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from s3torchconnector._cli._cat import pour_all, write_output
from s3torchconnector._cli._connection import Connection, connects
from s3torchconnector._cli._cp._items import Item, Request, items
from s3torchconnector._cli._cp._places import Local, Place, Places
from s3torchconnector._cli._cp._transfers import Options, Transfers, upload_stream, write_all
from s3torchconnector._cli._endings import clean_when_terminated
from s3torchconnector._cli._file_errors import named_in_errors
from s3torchconnector._cli._location import Location
from s3torchconnector._cli._output import DryRun, Json, Verbose
from s3torchconnector._cli._report import Report, Words
from s3torchconnector._config import S3ClientConfig
from s3torchconnector._s3client import S3Client
from s3torchconnector._write_options import S3WriteOptions

_WORDS = {False: Words("copied", "file", "copy", "copying"), True: Words("would copy", "file", "copy", "copying")}
_STORED = "Stored objects"  # a panel of --help
_GBPS = S3ClientConfig.throughput_target_gbps
_BUDGET = S3ClientConfig.memory_budget


@connects
def cp(
    paths: Places,
    *,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Copy what is in a folder.")] = False,
    no_overwrite: Annotated[bool, typer.Option("--no-overwrite", "-n", help="Leave out what exists.")] = False,
    update: Annotated[
        bool, typer.Option("--update", "-u", help="Leave out what has the same size, and was not changed since.")
    ] = False,
    no_follow_links: Annotated[bool, typer.Option("--no-follow-links", help="Leave out symbolic links.")] = False,
    fsync: Annotated[bool, typer.Option("--fsync", help="Have files on the disk before they get their names.")] = False,
    gbps: Annotated[float, typer.Option(min=0.1, help="Gbit/s to aim for. Memory grows with it.")] = _GBPS,
    storage_class: Annotated[str | None, typer.Option(help="STANDARD_IA, say.", rich_help_panel=_STORED)] = None,
    content_type: Annotated[str | None, typer.Option(help="Their media type.", rich_help_panel=_STORED)] = None,
    encryption: Annotated[str | None, typer.Option(help="AES256 or aws:kms.", rich_help_panel=_STORED)] = None,
    kms_key_id: Annotated[str | None, typer.Option(help="The key of aws:kms.", rich_help_panel=_STORED)] = None,
    acl: Annotated[str | None, typer.Option(help="A canned ACL.", rich_help_panel=_STORED)] = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """Copy files to S3, objects to files, or objects inside S3.

    Files are put into a destination that ends in a slash, or that is a folder. With --recursive, what is in the folder
    SOURCE is put into the folder DESTINATION. A dash is standard input or output.
    """
    request = _requested(paths, recursive, not no_follow_links)
    write = S3WriteOptions(
        storage_class=storage_class, content_type=content_type, encryption=encryption, kms_key_id=kms_key_id, acl=acl
    )
    options = Options(not no_overwrite, update=update, dry_run=dry_run, sync=fsync, write=write)
    goes_to_stream = isinstance(request.target, Local) and request.target.is_stream
    if goes_to_stream and (dry_run or as_json):
        raise typer.BadParameter(f"{request.target} is a stream: leave out --json and --dry-run")
    with connection.opened(**_settings(gbps)) as client, clean_when_terminated():
        if goes_to_stream:
            _to_stream(client, request)
        else:
            _copy(client, request, Report(_WORDS[dry_run], as_json=as_json, verbose=verbose or dry_run), options)


def _settings(gbps: float) -> dict[str, Any]:
    return {"throughput_target_gbps": gbps, "memory_budget": int(_BUDGET * max(1.0, gbps / _GBPS))}


def _requested(paths: list[Place], recursive: bool, follow_links: bool) -> Request:
    if len(paths) < 2:
        raise typer.BadParameter("a source and a destination are needed")
    return Request(paths[:-1], paths[-1], recursive, follow_links).check()


def _copy(client: S3Client, request: Request, report: Report, options: Options) -> None:
    target = request.target
    with report:
        if request.sources == [Local("-")]:
            assert isinstance(target, Location)
            report.attempt(Item(request.sources[0], target).names, partial(upload_stream, client, target, options))
        else:
            Transfers(client, report, options).run(items(client, request), downloads=isinstance(target, Local))


def _to_stream(client: S3Client, request: Request) -> None:
    """Write an object to standard output, to a pipe or to a device, which no file may take the place of."""
    [source], target = request.sources, request.target
    assert isinstance(source, Location)
    assert isinstance(target, Local)
    if target.text == "-":
        pour_all(client, [source], write_output)
    else:
        with named_in_errors(target.text), open(target.text, "wb", buffering=0) as file:
            pour_all(client, [source], partial(write_all, file.fileno()))
