"""An object is stored and the response is lost: the writer looks at what is stored before it reports a failure.

The faults are the recording proxy's, between the client and a real server, which has carried the request out.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from s3torchconnector import S3ClientConfig, S3Writer
from s3torchconnector._errors import S3ConnectionError, S3Exception, S3ObjectExistsError, S3ServiceError
from s3torchconnector._s3client import S3Client
from s3torchconnector.testing import S3Server
from tests.servers.http_messages import response, s3_error
from tests.servers.moto_server import MotoServer
from tests.servers.proxy import Drop, Fault, LoseResponse, RecordingProxy, Replace
from tests.writing.support import (
    PART,
    client_of,
    matching,
    noise,
    read_back,
    stores_object,
    uploads_of,
)

INTERNAL_ERROR = Replace(s3_error(500, "InternalError"))
SLOW_DOWN = Replace(s3_error(503, "SlowDown"))


@pytest.fixture(params=["rclone", "moto"])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[RecordingProxy, str]]:
    """A proxy before a real server, and a bucket there."""
    endpoint: S3Server | MotoServer = request.getfixturevalue(f"{'s3' if request.param == 'rclone' else 'moto'}_server")
    with RecordingProxy(endpoint.endpoint) as proxy:
        yield proxy, request.getfixturevalue("bucket" if request.param == "rclone" else "moto_bucket")


def hesitant(proxy: RecordingProxy, checksum: str = "when_supported", attempts: int = 1) -> S3Client:
    return client_of(proxy.endpoint, S3ClientConfig(part_size=PART, max_attempts=attempts, checksum=checksum))


def in_turn(proxy: RecordingProxy, *faults: Fault) -> None:
    """These for the first requests that store an object, the last of them for all that follow."""
    left = list(faults)
    proxy.misbehave = lambda request: (left.pop(0) if len(left) > 1 else left[0]) if stores_object(request) else None


def store(client: S3Client, bucket: str, data: bytes, *, overwrite: bool = True) -> None:
    with S3Writer(client.put_object(bucket, "key", overwrite=overwrite)) as writer:
        writer.write(data)


@pytest.mark.parametrize("overwrite", [True, False], ids=["overwrite", "create only"])
@pytest.mark.parametrize("checksum", ["when_supported", "off"])
def test_a_save_whose_only_response_is_lost_succeeds(
    place: tuple[RecordingProxy, str], data: bytes, checksum: str, overwrite: bool
) -> None:
    proxy, bucket = place
    with hesitant(proxy, checksum) as client:
        if overwrite:
            store(client, bucket, b"old")
        in_turn(proxy, LoseResponse())
        store(client, bucket, data, overwrite=overwrite)
        assert read_back(client, bucket) == data
        assert uploads_of(client, bucket) == []


@pytest.mark.parametrize("later", [INTERNAL_ERROR, SLOW_DOWN, Replace(s3_error(403, "AccessDenied"))])
def test_a_save_that_is_refused_after_a_lost_response_succeeds(
    place: tuple[RecordingProxy, str], data: bytes, later: Replace
) -> None:
    """The error of the last attempt says nothing about the first."""
    proxy, bucket = place
    with hesitant(proxy, attempts=2) as client:
        in_turn(proxy, LoseResponse(), later)
        store(client, bucket, data)
        proxy.misbehave = lambda request: None
        assert read_back(client, bucket) == data


@pytest.mark.parametrize("checksum", ["when_supported", "off"])
@pytest.mark.parametrize("fault", [Drop(), INTERNAL_ERROR])
def test_an_older_object_of_the_same_size_is_not_taken_for_ours(
    place: tuple[RecordingProxy, str], fault: Fault, checksum: str
) -> None:
    proxy, bucket = place
    data, old = noise(1000, seed=1), noise(1000, seed=2)
    with hesitant(proxy, checksum) as client:
        store(client, bucket, old)
        in_turn(proxy, fault)
        with pytest.raises(S3Exception, match=rf"\({len(data)} bytes, of .* could not be identified as this one"):
            store(client, bucket, data)
        assert read_back(client, bucket) == old


def test_the_error_says_that_a_look_found_nothing(place: tuple[RecordingProxy, str], data: bytes) -> None:
    proxy, bucket = place
    with hesitant(proxy) as client:
        in_turn(proxy, Drop())
        with pytest.raises(S3ConnectionError, match="A look at the key found no object afterwards"):
            store(client, bucket, data)


@pytest.mark.parametrize("overwrite", [True, False], ids=["overwrite", "create only"])
def test_the_error_says_that_no_look_was_possible(
    place: tuple[RecordingProxy, str], data: bytes, overwrite: bool
) -> None:
    proxy, bucket = place
    with hesitant(proxy) as client:
        stream = client.put_object(bucket, "key", overwrite=overwrite)
        stream.write(data)
        proxy.misbehave = lambda request: Replace(response(403)) if request.method == "HEAD" else LoseResponse()
        if len(data) > PART:
            in_turn(proxy, LoseResponse())
            conditions = proxy.misbehave
            proxy.misbehave = lambda request: (
                Replace(response(403)) if request.method == "HEAD" else conditions(request)
            )
        with pytest.raises(S3Exception, match=r"stored nevertheless could not be looked up .*403"):
            stream.close()


def test_a_refused_create_only_retry_says_that_no_look_was_possible(moto_server: MotoServer, moto_bucket: str) -> None:
    """What is in the way may be its own object."""
    with RecordingProxy(moto_server.endpoint) as proxy, hesitant(proxy, attempts=2) as client:
        stream = client.put_object(moto_bucket, "key", overwrite=False)
        stream.write(b"data")
        faults = iter([LoseResponse()])
        proxy.misbehave = lambda request: Replace(response(403)) if request.method == "HEAD" else next(faults, None)
        with pytest.raises(S3ObjectExistsError, match=r"stored nevertheless could not be looked up .*403"):
            stream.close()


def test_a_create_only_write_whose_key_another_writer_has_taken(
    place: tuple[RecordingProxy, str], data: bytes, s3_server: S3Server
) -> None:
    """The other one's bytes are the same: the mark tells."""
    proxy, bucket = place
    with hesitant(proxy) as client:
        writer = S3Writer(client.put_object(bucket, "key", overwrite=False))
        writer.write(data)
        store(client, bucket, data)
        in_turn(proxy, Drop())
        with pytest.raises(S3ObjectExistsError, match="overwrite=False does not replace it"):
            writer.close()


def test_a_refusal_of_the_only_attempt_is_believed(place: tuple[RecordingProxy, str]) -> None:
    """It was not carried out: nothing is looked at, though the same bytes are there."""
    proxy, bucket = place
    with hesitant(proxy) as client:
        store(client, bucket, b"data")
        in_turn(proxy, Replace(s3_error(400, "InvalidArgument")))
        with pytest.raises(S3ServiceError, match="InvalidArgument"):
            store(client, bucket, b"data")
        assert not matching(proxy, lambda request: request.method == "HEAD")
