"""``s3torch mb``: makes a bucket."""

from __future__ import annotations

from typing import Annotated

import typer

from s3torchconnector._cli._connection import Connection, connects
from s3torchconnector._cli._endings import fail
from s3torchconnector._cli._location import Location, parse_location
from s3torchconnector._cli._output import Json, print_json, print_line
from s3torchconnector._errors import S3AccessDeniedError, S3NotFoundError, S3ServiceError
from s3torchconnector._s3client import S3Client
from s3torchconnector._uri import is_arn
from s3torchconnector._wire import operations, read_document

_DIRECTORY = "--x-s3"  # the end of the names of directory buckets
_TAKEN = "BucketAlreadyExists"
_OURS = "BucketAlreadyOwnedByYou"


def _parse_bucket(text: str) -> str:
    bucket, key = parse_location(text)
    if key:
        raise typer.BadParameter(f"{text} names what is in a bucket: write s3://{bucket}")
    if is_arn(bucket):
        raise typer.BadParameter(f"{text} is an access point, not the name of a bucket")
    if bucket.endswith(_DIRECTORY):
        raise typer.BadParameter(
            f"{bucket} would be a directory bucket, which mb does not make: aws s3api create-bucket does"
        )
    return bucket


_Bucket = Annotated[str, typer.Argument(parser=_parse_bucket, metavar="S3_URI", help="s3://bucket")]


@connects
def mb(bucket: _Bucket, *, as_json: Json = False, connection: Connection) -> None:
    """Make a bucket, in the region that --region or the environment names.

    Exit code 1 if it exists already. Directory buckets are not made.
    """
    with connection.opened() as client:
        _make(client, bucket, connection.region_name)
    if as_json:
        print_json({"uri": str(Location(bucket, "")), "region": connection.region_name})
    else:
        print_line(f"made s3://{bucket}")


def _make(client: S3Client, bucket: str, region: str) -> None:
    caller, is_missing = client._runtime().caller, False
    try:  # in us-east-1, S3 says of one's own bucket that it was made
        caller.call(operations.list_objects(bucket, max_keys=1), read_document)
        raise fail(f"the bucket {bucket} exists already")
    except S3NotFoundError:
        is_missing = True
    except S3AccessDeniedError:  # it may be somebody else's, or one may make what one may not list
        pass
    try:
        caller.call(operations.create_bucket(bucket, region), read_document)
    except S3ServiceError as error:
        if error.code == _OURS and is_missing:
            return  # an earlier attempt has made it, whose response was lost
        if error.code in (_OURS, _TAKEN):
            whose = "of somebody else: names are unique in all of AWS, choose another" if error.code == _TAKEN else ""
            raise fail(f"there is already a bucket {bucket} {whose}".rstrip()) from None
        raise
