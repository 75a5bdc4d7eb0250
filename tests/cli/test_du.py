"""``s3torch du``: totals, folders, storage classes."""

from __future__ import annotations

import json

import pytest

from s3torchconnector import S3Client, S3WriteOptions
from s3torchconnector.testing import S3Server
from tests.cli.support import call
from tests.servers.moto_server import MotoServer


@pytest.fixture
def tree(s3_server: S3Server, bucket: str) -> str:
    for name, size in (("im/0", 1), ("im/a/1", 10), ("im/a/x/2", 100), ("im/b/3", 1000), ("img", 10_000), ("z", 5)):
        path = s3_server.folder / bucket / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(bytes(size))
    return bucket


def _rows(*arguments: str) -> list[list[str]]:
    done = call("du", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split() for line in done.stdout.splitlines()]


def test_the_total_is_of_all_keys_that_begin_so(tree: str) -> None:
    assert _rows(f"s3://{tree}/im") == [["11111", "5", f"s3://{tree}/im"]]
    assert _rows(f"s3://{tree}/im/") == [["1111", "4", f"s3://{tree}/im/"]]


def test_nothing_is_exit_code_1_as_of_ls_but_for_an_empty_bucket(bucket: str) -> None:
    uri = f"s3://{bucket}/none"
    done = call("du", uri)
    assert (done.returncode, done.stdout.split()) == (1, ["0", "0", uri])
    assert done.stderr == call("ls", uri).stderr
    empty = call("du", uri, "--json")
    assert (empty.returncode, json.loads(empty.stdout)["objects"]) == (1, 0)
    assert _rows(f"s3://{bucket}") == [["0", "0", f"s3://{bucket}/"]]


def test_folders_are_counted_with_all_that_is_in_them(tree: str) -> None:
    at = f"s3://{tree}"
    assert _rows(f"{at}/im", "--depth", "1") == [["1111", "4", f"{at}/im/"], ["11111", "5", f"{at}/im"]]
    assert _rows(at, "--depth", "2") == [
        ["1111", "4", f"{at}/im/"],
        ["110", "2", f"{at}/im/a/"],
        ["1000", "1", f"{at}/im/b/"],
        ["11116", "6", f"{at}/"],
    ]
    assert _rows(f"{at}/im/a/", "--depth", "9")[0] == ["100", "1", f"{at}/im/a/x/"]


def test_sizes_can_be_read(tree: str) -> None:
    assert _rows(f"s3://{tree}/im", "-h") == [["10.9", "KiB", "5", f"s3://{tree}/im"]]


def test_storage_classes_are_distinguished(moto_server: MotoServer, moto_bucket: str) -> None:
    with S3Client("us-east-1", endpoint=moto_server.endpoint) as client:
        for key, kind in (("a/1", None), ("a/2", "STANDARD_IA"), ("b", "GLACIER")):
            with client.put_object(moto_bucket, key, options=S3WriteOptions(storage_class=kind)) as writer:
                writer.write(bytes(len(key)))
    uri, endpoint = f"s3://{moto_bucket}/", f"--endpoint-url={moto_server.endpoint}"
    assert _rows(uri, endpoint)[1:] == [["1", "1", "(GLACIER)"], ["3", "1", "(STANDARD)"], ["3", "1", "(STANDARD_IA)"]]
    document = json.loads(call("du", uri, endpoint, "--depth=1", "--json").stdout)
    assert document == {
        "uri": uri,
        "objects": 3,
        "bytes": 7,
        "storage_classes": {
            "GLACIER": {"objects": 1, "bytes": 1},
            "STANDARD": {"objects": 1, "bytes": 3},
            "STANDARD_IA": {"objects": 1, "bytes": 3},
        },
        "prefixes": [{"uri": f"s3://{moto_bucket}/a/", "objects": 2, "bytes": 6}],
    }
