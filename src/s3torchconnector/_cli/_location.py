"""``s3://`` URIs as arguments of commands."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import typer

from s3torchconnector._uri import parse_s3_uri


class Location(NamedTuple):
    """What an ``s3://`` URI names: a bucket, and a key or a prefix of keys, which may be empty."""

    bucket: str
    key: str

    @property
    def folder(self) -> Location:
        """The same as the beginning of keys that are below it: it ends in a slash, unless it is a whole bucket."""
        return self._replace(key=self.key if not self.key or self.key.endswith("/") else f"{self.key}/")

    @property
    def name(self) -> str:
        """What comes after the last slash of the key."""
        return self.key[self.key.rfind("/") + 1 :]

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def parse_location(text: str) -> Location:
    """Read an argument. A wrong one is wrong usage: exit code 2."""
    try:
        return Location(*parse_s3_uri(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Prefix = Annotated[Location, typer.Argument(parser=parse_location, metavar="S3_URI", help="s3://bucket/prefix")]
Object = Annotated[Location, typer.Argument(parser=parse_location, metavar="S3_URI", help="s3://bucket/key")]
Objects = Annotated[
    list[Location], typer.Argument(parser=parse_location, metavar="S3_URI...", help="s3://bucket/key, one or more")
]
