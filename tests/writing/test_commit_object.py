"""Commits: an object takes the place of exactly the version that was seen.

moto honours the conditions, except ``If-Match`` of CompleteMultipartUpload, which the proxy refuses as AWS does.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from s3torchconnector._errors import S3Exception, S3ObjectChangedError
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer import CommitObject, Seen, refused_for_sure
from tests.servers.http_messages import ReceivedRequest, s3_error
from tests.servers.moto_server import MotoServer
from tests.servers.proxy import Fault, LoseResponse, RecordingProxy, Replace, first
from tests.writing.support import (
    client_of,
    is_complete,
    is_put,
    matching,
    read_back,
    stores_object,
    uploads_of,
)


def refusing(server: MotoServer, bucket: str) -> Callable[[ReceivedRequest], Fault | None]:
    """A hook that refuses to complete in place of another version than the one expected."""

    def hook(request: ReceivedRequest) -> Fault | None:
        if not (is_complete(request) and "if-match" in request.headers):
            return None
        with client_of(server.endpoint) as client:
            there = CommitObject(client._runtime, bucket, "key").read()
        if there.data is None:
            return Replace(s3_error(404, "NoSuchKey"))
        return Replace(s3_error(412, "PreconditionFailed")) if request.headers["if-match"] != there.etag else None

    return hook


def put(client: S3Client, bucket: str, data: bytes) -> None:
    stream = client.put_object(bucket, "key")
    stream.write(data)
    stream.close()


def test_what_was_seen_is_replaced(moto_client: S3Client, moto_bucket: str, moto: RecordingProxy, data: bytes) -> None:
    for content, condition in ((b"first", "if-none-match"), (data, "if-match")):
        commit = CommitObject(moto_client._runtime, moto_bucket, "key")
        seen = commit.look()
        commit.replace(seen, content)
        [*_, exchange] = matching(moto, stores_object)
        assert exchange.request.headers[condition] == (seen.etag or "*")
        assert commit.stands(seen)
        assert read_back(moto_client, moto_bucket) == content


@pytest.mark.parametrize("there", [b"seen", None])
def test_what_was_not_seen_is_left_alone(
    moto_client: S3Client,
    moto_bucket: str,
    moto: RecordingProxy,
    moto_server: MotoServer,
    there: bytes | None,
    data: bytes,
) -> None:
    moto.misbehave = refusing(moto_server, moto_bucket)
    if there is not None:
        put(moto_client, moto_bucket, there)
    commit = CommitObject(moto_client._runtime, moto_bucket, "key")
    seen = commit.look()
    assert seen.data == there
    put(moto_client, moto_bucket, b"another writer's")
    with pytest.raises(S3ObjectChangedError, match=r"is not committed: .* another job is saving to the same") as caught:
        commit.replace(seen, data)
    assert caught.value.status == 412
    assert refused_for_sure(caught.value)
    assert read_back(moto_client, moto_bucket) == b"another writer's"
    assert not commit.stands(seen)
    assert uploads_of(moto_client, moto_bucket) == []


def test_what_was_deleted_is_not_replaced(
    moto_client: S3Client, moto_bucket: str, moto: RecordingProxy, moto_server: MotoServer, data: bytes
) -> None:
    moto.misbehave = refusing(moto_server, moto_bucket)
    put(moto_client, moto_bucket, b"seen")
    commit = CommitObject(moto_client._runtime, moto_bucket, "key")
    seen = commit.look()
    moto_client.delete_object(moto_bucket, "key")
    with pytest.raises(S3ObjectChangedError, match="is not committed"):
        commit.replace(seen, data)
    assert commit.look().data is None


@pytest.mark.parametrize("there", [b"seen", None])
def test_a_lost_response_is_no_failure(
    moto_client: S3Client, moto_bucket: str, moto: RecordingProxy, there: bytes | None, data: bytes
) -> None:
    if there is not None:
        put(moto_client, moto_bucket, there)
    commit = CommitObject(moto_client._runtime, moto_bucket, "key")
    seen = commit.look()
    moto.misbehave = first(1, LoseResponse(), when=stores_object)
    commit.replace(seen, data)
    assert commit.stands(seen)
    assert read_back(moto_client, moto_bucket) == data


def test_a_lost_response_and_another_commit(
    moto_client: S3Client, moto_bucket: str, moto: RecordingProxy, moto_server: MotoServer
) -> None:
    """It was carried out, and replaced: put back by the retry, it would name what the other has deleted."""
    put(moto_client, moto_bucket, b"seen")
    commit = CommitObject(moto_client._runtime, moto_bucket, "key")
    seen = commit.look()
    attempts: list[ReceivedRequest] = []

    def hook(request: ReceivedRequest) -> Fault | None:
        if not is_put(request):
            return None
        attempts.append(request)
        if len(attempts) == 1:
            return LoseResponse()
        with client_of(moto_server.endpoint) as other:
            put(other, moto_bucket, b"another's")
        return None

    moto.misbehave = hook
    with pytest.raises(S3ObjectChangedError) as caught:
        commit.replace(seen, b"ours")
    assert len(attempts) == 2
    assert not refused_for_sure(caught.value)
    assert read_back(moto_client, moto_bucket) == b"another's"


def test_a_conflict_that_passes_and_one_that_stays(
    moto_client: S3Client, moto_bucket: str, moto: RecordingProxy, data: bytes
) -> None:
    put(moto_client, moto_bucket, b"seen")
    commit = CommitObject(moto_client._runtime, moto_bucket, "key")
    conflict = Replace(s3_error(409, "ConditionalRequestConflict"))
    moto.misbehave = first(1, conflict, when=stores_object)
    commit.replace(commit.look(), data)
    assert read_back(moto_client, moto_bucket) == data
    moto.misbehave = lambda request: conflict if stores_object(request) else None
    with client_of(moto.endpoint, type(moto_client.s3client_config)(max_attempts=2)) as other:
        commit = CommitObject(other._runtime, moto_bucket, "key")
        with pytest.raises(S3ObjectChangedError, match="ConditionalRequestConflict"):
            commit.replace(commit.look(), b"new")


@pytest.mark.parametrize("etag", ['W/"weak"', "", None])
def test_an_etag_that_never_matches_is_no_condition(
    moto_client: S3Client, moto_bucket: str, moto: RecordingProxy, etag: str | None
) -> None:
    put(moto_client, moto_bucket, b"seen")
    CommitObject(moto_client._runtime, moto_bucket, "key").replace(Seen(True, etag, b"seen"), b"new")
    assert "if-match" not in matching(moto, is_put)[-1].request.headers
    assert read_back(moto_client, moto_bucket) == b"new"


def test_a_restored_commit_is_an_error(moto_client: S3Client, moto_bucket: str) -> None:
    """As on a server that ignores conditions, and carries out an old request again."""
    put(moto_client, moto_bucket, b"seen")
    commit = CommitObject(moto_client._runtime, moto_bucket, "key")
    seen = commit.look()
    commit.replace(seen, b"new")
    put(moto_client, moto_bucket, b"seen")
    with pytest.raises(S3ObjectChangedError, match=r"is again what it was before.*ignores conditions"):
        commit.stands(seen)


def test_what_cannot_be_looked_at_is_unknown(moto_client: S3Client, moto_bucket: str, moto: RecordingProxy) -> None:
    commit = CommitObject(moto_client._runtime, moto_bucket, "key")
    moto.misbehave = lambda request: Replace(s3_error(403, "AccessDenied"))
    assert commit.look() == Seen(False)
    with pytest.raises(S3Exception):
        commit.read()
    with pytest.raises(S3Exception):
        commit.stands(Seen(False))
