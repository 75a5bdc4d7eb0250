"""What a spawned process does in the tests of keys of the customer. It imports no more than that takes."""

from __future__ import annotations

from s3torchconnector import S3Client

KEY = bytes(range(32))


def key_of_program() -> bytes:
    return KEY


def read(client: S3Client) -> bytes:
    with client.get_object("bucket", "key") as reader:
        return reader.read()
