"""``s3torch ls``."""

from __future__ import annotations

from s3torchconnector._cli._connection import Connection, connects
from s3torchconnector._cli._location import Location, Prefix
from s3torchconnector._cli._output import Json, print_json, print_line


@connects
def ls(prefix: Prefix, *, as_json: Json = False, connection: Connection) -> None:
    """List the objects below a prefix: size in bytes, and URI. With --json, one line for each object."""
    with connection.client() as client:
        for infos in client.list_all(prefix.bucket, prefix.key):
            for info in infos:
                uri = str(Location(prefix.bucket, info.key))
                if as_json:
                    print_json({"uri": uri, "size": info.size, "etag": info.etag})
                else:
                    print_line(f"{info.size:>14}  {uri}")
