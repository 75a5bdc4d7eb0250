"""The arguments of ``cp``: objects, files, and the standard streams."""

from __future__ import annotations

import os
import re
import stat
from typing import Annotated, Any, NamedTuple

import typer

from s3torchconnector._cli._location import Location, parse_location

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
# Links to open files of a process, which may be regular ones, but must not be replaced by others.
_DEVICES = ("/dev/fd/", "/dev/std", "/proc/")


class Local(NamedTuple):
    """A path on this machine, as it was typed, or ``-`` for standard input or output."""

    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def is_folder(self) -> bool:
        """Whether it is one, or its text says that it is to become one."""
        return self.text.endswith(("/", os.sep)) or os.path.isdir(self.text)

    @property
    def is_stream(self) -> bool:
        """Whether bytes go in or out there in order: a standard stream, a pipe, a device."""
        if self.text == "-" or self.text.startswith(_DEVICES):
            return True
        try:
            kind = os.stat(self.text).st_mode
        except OSError:
            return False
        return not (stat.S_ISREG(kind) or stat.S_ISDIR(kind))

    @property
    def name(self) -> str:
        return os.path.basename(self.text)


Place = Location | Local


def parse_place(text: str) -> Place:
    """Read an argument. A wrong one is wrong usage: exit code 2."""
    if text[:3].lower() == "s3:":
        return parse_location(text)
    if not text or (_SCHEME.match(text) and not os.path.splitdrive(text)[0]):
        raise typer.BadParameter(f"neither a path nor an S3 URI: {text!r}. Write s3://bucket/key, or a path, or -")
    return Local(text)


Places = Annotated[
    list[Any],
    typer.Argument(parser=parse_place, metavar="SOURCE... DESTINATION", help="s3://bucket/key, a path, or -"),
]
