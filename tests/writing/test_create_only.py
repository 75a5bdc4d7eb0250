"""``overwrite=False``: an object that is there is left alone, and of many writers one succeeds.

moto honours ``If-None-Match``; rclone ignores it, and stands for servers that do. Faults are the recording proxy's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from s3torchconnector import S3Checkpoint, S3Writer
from s3torchconnector._errors import S3ObjectExistsError
from s3torchconnector._s3client import S3Client
from s3torchconnector.testing import S3Server
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.moto_server import MotoServer
from tests.servers.proxy import Fault, LoseResponse, RecordingProxy, Replace, first
from tests.writing.support import (
    PART,
    SMALL_PARTS,
    client_of,
    is_abort,
    is_complete,
    is_part,
    is_put,
    matching,
    noise,
    read_back,
    save,
    uploads_of,
)

SIZES = {"one request": 1000, "multipart": 2 * PART + 7}


@pytest.fixture(params=SIZES)
def data(request: pytest.FixtureRequest) -> bytes:
    return noise(SIZES[request.param], seed=1)


@pytest.fixture
def moto(moto_server: MotoServer) -> Iterator[RecordingProxy]:
    with RecordingProxy(moto_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def client(moto: RecordingProxy) -> Iterator[S3Client]:
    with client_of(moto.endpoint) as client:
        yield client


def create(client: S3Client, bucket: str, data: bytes) -> None:
    with S3Writer(client.put_object(bucket, "key", overwrite=False)) as writer:
        writer.write(data)


def is_condition(request: ReceivedRequest) -> bool:
    return is_put(request) or is_complete(request)


def test_a_free_key_is_taken_by_a_guarded_request(
    client: S3Client, moto_bucket: str, moto: RecordingProxy, data: bytes
) -> None:
    create(client, moto_bucket, data)
    assert read_back(client, moto_bucket) == data
    [condition] = matching(moto, is_condition)
    assert condition.request.headers["if-none-match"] == "*"
    assert not any("if-none-match" in part.request.headers for part in matching(moto, is_part))


def test_a_key_that_is_taken_is_an_error_before_anything_is_written(client: S3Client, moto_bucket: str) -> None:
    old = save(client, moto_bucket, 10)
    with pytest.raises(FileExistsError, match=f"s3://{moto_bucket}/key exists, and was not to be over") as caught:
        client.put_object(moto_bucket, "key", overwrite=False)
    assert isinstance(caught.value, S3ObjectExistsError)
    assert (caught.value.bucket, caught.value.key, caught.value.errno) == (moto_bucket, "key", 17)
    assert read_back(client, moto_bucket) == old


def test_the_checkpoint_passes_it_on(moto: RecordingProxy, moto_bucket: str, data: bytes) -> None:
    checkpoint = S3Checkpoint("us-east-1", moto.endpoint, SMALL_PARTS)
    uri = f"s3://{moto_bucket}/key"
    with checkpoint.writer(uri, overwrite=False) as writer:
        writer.write(data)
    with pytest.raises(FileExistsError):
        checkpoint.writer(uri, overwrite=False)
    with checkpoint.writer(uri) as writer:
        writer.write(b"new")
    with checkpoint.reader(uri) as reader:
        assert reader.read() == b"new"


def test_who_comes_second_leaves_the_first_alone(
    client: S3Client, moto_bucket: str, moto: RecordingProxy, data: bytes
) -> None:
    """Also where both store the same bytes: they were told that they would create it."""
    writer = S3Writer(client.put_object(moto_bucket, "key", overwrite=False))
    writer.write(data)
    create(client, moto_bucket, data)
    with pytest.raises(FileExistsError, match=r"412 PreconditionFailed") as caught:
        writer.close()
    assert isinstance(caught.value, S3ObjectExistsError)
    assert caught.value.attempts == 1
    assert read_back(client, moto_bucket) == data
    assert len(matching(moto, is_abort)) == (1 if len(data) > PART else 0)
    assert uploads_of(client, moto_bucket) == []


def test_of_many_writers_one_succeeds(client: S3Client, moto_bucket: str) -> None:
    together = threading.Barrier(8)

    def race(number: int) -> bool:
        writer = S3Writer(client.put_object(moto_bucket, "key", overwrite=False))
        writer.write(b"%d" % number)
        together.wait(30)
        try:
            writer.close()
        except S3ObjectExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(race, range(8)))
    assert won.count(True) == 1
    assert read_back(client, moto_bucket) == b"%d" % won.index(True)


def test_a_lost_answer_is_no_failure(
    client: S3Client, moto_bucket: str, moto: RecordingProxy, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "s3torchconnector")
    moto.misbehave = first(1, LoseResponse(), when=is_condition)
    create(client, moto_bucket, data)
    assert read_back(client, moto_bucket) == data
    assert len(matching(moto, is_condition)) == 2
    if len(data) < PART:  # of a completion, moto remembers that it was carried out
        assert "was stored by an attempt whose response was lost" in caplog.text


def test_a_lost_answer_and_another_writers_same_bytes(
    client: S3Client, moto_bucket: str, moto: RecordingProxy, moto_server: MotoServer
) -> None:
    """The first attempt was not carried out, another writer was faster: that its bytes are ours makes it no less."""
    data = noise(1000, seed=1)

    def be_faster(request: ReceivedRequest) -> Fault | None:
        if not is_put(request):
            return None
        moto.misbehave = lambda request: None
        with client_of(moto_server.endpoint) as other:
            create(other, moto_bucket, data)
        return Replace(s3_error(503, "SlowDown"))

    writer = S3Writer(client.put_object(moto_bucket, "key", overwrite=False))
    writer.write(data)
    moto.misbehave = be_faster
    with pytest.raises(S3ObjectExistsError):
        writer.close()


def test_an_aborted_upload_and_another_writers_same_bytes(
    client: S3Client, moto_bucket: str, moto: RecordingProxy, moto_server: MotoServer
) -> None:
    """What tells the two apart is the mark: sizes, ETags and checksums are the same."""
    data = noise(SIZES["multipart"], seed=1)

    def abort(request: ReceivedRequest) -> Fault | None:
        if not is_complete(request):
            return None
        with client_of(moto_server.endpoint) as other:
            create(other, moto_bucket, data)
        return Replace(s3_error(404, "NoSuchUpload"))

    writer = S3Writer(client.put_object(moto_bucket, "key", overwrite=False))
    writer.write(data)
    moto.misbehave = abort
    with pytest.raises(S3ObjectExistsError, match=r"key exists, and was not to be overwritten") as caught:
        writer.close()
    assert caught.value.operation == "CompleteMultipartUpload"


def test_a_lost_answer_to_a_completion_that_cannot_be_asked_again(bucket: str, proxy: RecordingProxy) -> None:
    data = noise(SIZES["multipart"], seed=1)
    proxy.misbehave = first(1, LoseResponse(), when=is_complete)
    with client_of(proxy.endpoint) as client:
        create(client, bucket, data)
        assert read_back(client, bucket) == data


def test_a_conflict_that_passes(client: S3Client, moto_bucket: str, moto: RecordingProxy, data: bytes) -> None:
    conflict = Replace(s3_error(409, "ConditionalRequestConflict"))
    moto.misbehave = first(1, conflict, when=is_condition)
    create(client, moto_bucket, data)
    assert read_back(client, moto_bucket) == data


def test_a_conflict_that_stays(moto: RecordingProxy, moto_bucket: str, data: bytes) -> None:
    conflict = Replace(s3_error(409, "ConditionalRequestConflict"))
    moto.misbehave = lambda request: conflict if is_condition(request) else None
    config = type(SMALL_PARTS)(part_size=PART, max_attempts=2)
    with client_of(moto.endpoint, config) as client:
        with pytest.raises(S3ObjectExistsError, match=r"ConditionalRequestConflict.*after 2 attempts"):
            create(client, moto_bucket, data)
        assert uploads_of(client, moto_bucket) == []


def test_an_error_in_the_answer_to_a_completion(client: S3Client, moto_bucket: str, moto: RecordingProxy) -> None:
    late = response(200, b"  \n" + s3_error(412, "PreconditionFailed").split(b"\r\n\r\n", 1)[1])
    moto.misbehave = lambda request: Replace(late) if is_complete(request) else None
    with pytest.raises(S3ObjectExistsError):
        create(client, moto_bucket, noise(SIZES["multipart"]))


def test_who_may_not_look_can_still_create(client: S3Client, moto_bucket: str, moto: RecordingProxy) -> None:
    moto.misbehave = lambda request: Replace(response(403)) if request.method == "HEAD" else None
    create(client, moto_bucket, b"first")
    with pytest.raises(S3ObjectExistsError, match="412"):
        create(client, moto_bucket, b"second")
    moto.misbehave = lambda request: None
    assert read_back(client, moto_bucket) == b"first"


def test_a_server_that_ignores_the_header_is_asked_before(s3_server: S3Server, bucket: str, data: bytes) -> None:
    with client_of(s3_server.endpoint) as client:
        create(client, bucket, data)
        with pytest.raises(S3ObjectExistsError, match="exists"):
            create(client, bucket, b"other")
        assert read_back(client, bucket) == data


def test_without_it_no_request_is_guarded_and_nothing_is_asked(
    client: S3Client, moto_bucket: str, moto: RecordingProxy, data: bytes
) -> None:
    with S3Writer(client.put_object(moto_bucket, "key")) as writer:
        writer.write(data)
    assert not any("if-none-match" in each.request.headers for each in moto.exchanges)
    assert not any("x-amz-meta" in name for each in moto.exchanges for name in each.request.headers)
    assert not moto.of("HEAD")
