"""``overwrite=False``: an object that exists is left alone, and of many writers one succeeds.

moto honours ``If-None-Match``; rclone ignores it, and stands for servers that do. Faults are the recording proxy's.
"""

from __future__ import annotations

import threading
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
    STORED_BY,
    client_of,
    is_abort,
    is_complete,
    is_part,
    is_put,
    matching,
    noise,
    read_back,
    save,
    stores_object,
    uploads_of,
)


def create(client: S3Client, bucket: str, data: bytes) -> None:
    with S3Writer(client.put_object(bucket, "key", overwrite=False)) as writer:
        writer.write(data)


def test_a_free_key_is_written_by_a_conditional_request(
    moto_client: S3Client, moto_bucket: str, moto: RecordingProxy, data: bytes
) -> None:
    create(moto_client, moto_bucket, data)
    assert read_back(moto_client, moto_bucket) == data
    [condition] = matching(moto, stores_object)
    assert condition.request.headers["if-none-match"] == "*"
    assert not any("if-none-match" in part.request.headers for part in matching(moto, is_part))


def test_an_existing_object_is_an_error_before_the_first_byte(moto_client: S3Client, moto_bucket: str) -> None:
    old = save(moto_client, moto_bucket, 10)
    with pytest.raises(FileExistsError, match=f"s3://{moto_bucket}/key exists, and overwrite=False") as caught:
        moto_client.put_object(moto_bucket, "key", overwrite=False)
    assert isinstance(caught.value, S3ObjectExistsError)
    assert (caught.value.bucket, caught.value.key, caught.value.errno) == (moto_bucket, "key", 17)
    assert read_back(moto_client, moto_bucket) == old


def test_a_checkpoint_passes_overwrite_on(moto: RecordingProxy, moto_bucket: str, data: bytes) -> None:
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


def test_the_second_writer_leaves_the_first_ones_object_alone(
    moto_client: S3Client, moto_bucket: str, moto: RecordingProxy, data: bytes
) -> None:
    """Also if both store the same bytes: they were told that they would create it."""
    writer = S3Writer(moto_client.put_object(moto_bucket, "key", overwrite=False))
    writer.write(data)
    create(moto_client, moto_bucket, data)
    with pytest.raises(FileExistsError, match=r"412 PreconditionFailed") as caught:
        writer.close()
    assert isinstance(caught.value, S3ObjectExistsError)
    assert caught.value.attempts == 1
    assert read_back(moto_client, moto_bucket) == data
    assert len(matching(moto, is_abort)) == (1 if len(data) > PART else 0)
    assert uploads_of(moto_client, moto_bucket) == []


def test_of_many_writers_one_succeeds(moto_client: S3Client, moto_bucket: str) -> None:
    together = threading.Barrier(8)

    def race(number: int) -> bool:
        writer = S3Writer(moto_client.put_object(moto_bucket, "key", overwrite=False))
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
    assert read_back(moto_client, moto_bucket) == b"%d" % won.index(True)


def test_a_lost_response_is_no_failure(
    moto_client: S3Client, moto_bucket: str, moto: RecordingProxy, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "s3torchconnector")
    moto.misbehave = first(1, LoseResponse(), when=stores_object)
    create(moto_client, moto_bucket, data)
    assert read_back(moto_client, moto_bucket) == data
    assert len(matching(moto, stores_object)) == 2
    if len(data) < PART:  # of a completion, moto remembers that it was carried out
        assert "was stored by an attempt whose response was lost" in caplog.text


def test_a_lost_response_and_another_writers_equal_bytes(
    moto_client: S3Client, moto_bucket: str, moto: RecordingProxy, moto_server: MotoServer
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

    writer = S3Writer(moto_client.put_object(moto_bucket, "key", overwrite=False))
    writer.write(data)
    moto.misbehave = be_faster
    with pytest.raises(S3ObjectExistsError):
        writer.close()


def test_an_aborted_upload_and_another_writers_equal_bytes(
    moto_client: S3Client, moto_bucket: str, moto: RecordingProxy, moto_server: MotoServer
) -> None:
    """What tells the two apart is the mark: sizes, ETags and checksums are the same."""
    data = noise(STORED_BY["multipart"], seed=1)

    def abort(request: ReceivedRequest) -> Fault | None:
        if not is_complete(request):
            return None
        with client_of(moto_server.endpoint) as other:
            create(other, moto_bucket, data)
        return Replace(s3_error(404, "NoSuchUpload"))

    writer = S3Writer(moto_client.put_object(moto_bucket, "key", overwrite=False))
    writer.write(data)
    moto.misbehave = abort
    with pytest.raises(S3ObjectExistsError, match=r"key exists, and overwrite=False does not replace it") as caught:
        writer.close()
    assert caught.value.operation == "CompleteMultipartUpload"


def test_a_lost_response_to_a_completion_that_is_not_retried(bucket: str, proxy: RecordingProxy) -> None:
    data = noise(STORED_BY["multipart"], seed=1)
    proxy.misbehave = first(1, LoseResponse(), when=is_complete)
    with client_of(proxy.endpoint) as client:
        create(client, bucket, data)
        assert read_back(client, bucket) == data


def test_a_conflict_that_passes(moto_client: S3Client, moto_bucket: str, moto: RecordingProxy, data: bytes) -> None:
    conflict = Replace(s3_error(409, "ConditionalRequestConflict"))
    moto.misbehave = first(1, conflict, when=stores_object)
    create(moto_client, moto_bucket, data)
    assert read_back(moto_client, moto_bucket) == data


def test_a_conflict_that_stays(moto: RecordingProxy, moto_bucket: str, data: bytes) -> None:
    conflict = Replace(s3_error(409, "ConditionalRequestConflict"))
    moto.misbehave = lambda request: conflict if stores_object(request) else None
    config = type(SMALL_PARTS)(part_size=PART, max_attempts=2)
    with client_of(moto.endpoint, config) as client:
        with pytest.raises(S3ObjectExistsError, match=r"ConditionalRequestConflict.*after 2 attempts"):
            create(client, moto_bucket, data)
        assert uploads_of(client, moto_bucket) == []


def test_an_error_in_the_response_to_a_completion(
    moto_client: S3Client, moto_bucket: str, moto: RecordingProxy
) -> None:
    late = response(200, b"  \n" + s3_error(412, "PreconditionFailed").split(b"\r\n\r\n", 1)[1])
    moto.misbehave = lambda request: Replace(late) if is_complete(request) else None
    with pytest.raises(S3ObjectExistsError):
        create(moto_client, moto_bucket, noise(STORED_BY["multipart"]))


def test_a_writer_that_may_not_look_can_still_create(
    moto_client: S3Client, moto_bucket: str, moto: RecordingProxy
) -> None:
    moto.misbehave = lambda request: Replace(response(403)) if request.method in ("GET", "HEAD") else None
    create(moto_client, moto_bucket, b"first")
    with pytest.raises(S3ObjectExistsError, match="412"):
        create(moto_client, moto_bucket, b"second")
    moto.misbehave = lambda request: None
    assert read_back(moto_client, moto_bucket) == b"first"


def test_the_key_is_looked_at_if_the_server_ignores_conditions(s3_server: S3Server, bucket: str, data: bytes) -> None:
    with client_of(s3_server.endpoint) as client:
        create(client, bucket, data)
        with pytest.raises(S3ObjectExistsError, match="exists"):
            create(client, bucket, b"other")
        assert read_back(client, bucket) == data


def test_overwriting_sends_no_condition_and_no_look(
    moto_client: S3Client, moto_bucket: str, moto: RecordingProxy, data: bytes
) -> None:
    with S3Writer(moto_client.put_object(moto_bucket, "key")) as writer:
        writer.write(data)
    assert not any("if-none-match" in each.request.headers for each in moto.exchanges)
    assert not any("x-amz-meta" in name for each in moto.exchanges for name in each.request.headers)
    assert not moto.of("HEAD")
