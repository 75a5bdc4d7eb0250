"""What S3 promises and not every server keeps: conditions of writes, and checksums.

Only on servers about which something is known: the real ones, and stand-ins that have a rule about it.
"""

from __future__ import annotations

import pytest

from s3torchconnector import S3Exception
from s3torchconnector._errors import S3ChecksumError, S3NotFoundError, S3ObjectExistsError
from tests.every_server.conftest import Server
from tests.reading.support import MIB, PART, content, put

SMALL, SEVERAL = 1000, PART + MIB
REFUSE_CHECKSUMS = ("OldMinio", "Gcs", "Backblaze")
KNOWN = ("rclone", "moto", "AwsLike", "Minio", "Ceph16", "RustFs", *REFUSE_CHECKSUMS)
# Whose objects of which sizes cannot be verified. RustFS keeps a wrong checksum, the others keep none of the whole.
UNVERIFIED = [("rclone", SEVERAL), ("moto", SMALL), ("Ceph16", SMALL), ("Ceph16", SEVERAL), ("RustFs", SEVERAL)]


@pytest.mark.parametrize("server", ["rclone", "moto", "AwsLike", "Ceph16"], indirect=True)
@pytest.mark.parametrize("size", [SMALL, SEVERAL])
def test_one_of_two_writers_succeeds(server: Server, size: int) -> None:
    with server.client() as client:
        first, second = (client.put_object(server.bucket, "key", overwrite=False) for _ in range(2))
        first.write(content(0, size))
        second.write(content(1, size + 1))
        first.close()
        if server.name == "rclone":
            server.limit("ignored", "two writers at the same time both succeed, and the later object stays")
            second.close()
            return
        if server.name == "Ceph16" and size == SEVERAL:
            server.limit("in part", "writers of large objects that complete within the same milliseconds all succeed")
        with pytest.raises(S3ObjectExistsError):
            second.close()
        with client.get_object(server.bucket, "key") as reader:
            assert reader.read() == content(0, size)


@pytest.mark.parametrize("server", KNOWN, indirect=True)
@pytest.mark.parametrize("size", [SMALL, SEVERAL])
def test_required_checksums_are_present_or_it_is_an_error(server: Server, size: int) -> None:
    with server.client(checksum="required") as client:
        if server.name in REFUSE_CHECKSUMS:
            server.limit("refused", "the server takes no such checksums, so every upload is an error")
            with pytest.raises(S3Exception):
                put(client, server.bucket, "key", content(0, size))
            with server.client(checksum="off") as other, pytest.raises(S3NotFoundError):
                other.head_object(server.bucket, "key")
            return
        put(client, server.bucket, "key", content(0, size))
        with client.get_object(server.bucket, "key") as reader:
            if (server.name, size) not in UNVERIFIED:
                assert reader.read() == content(0, size)
                return
            server.limit("in part", "reading an object is an error if the server keeps no right checksum of the whole")
            with pytest.raises(S3ChecksumError):
                reader.read()
