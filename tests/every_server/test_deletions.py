"""Many objects are deleted by one request, or one by one where the server refuses that, or XML a key."""

from __future__ import annotations

from collections.abc import Callable
from xml.sax.saxutils import escape

import pytest

from s3torchconnector._errors import (
    S3AccessDeniedError,
    S3ConnectionError,
    S3Exception,
    S3NotFoundError,
    S3ServiceError,
)
from s3torchconnector._s3client import S3Client
from s3torchconnector._wire import Quirk
from tests.every_server.conftest import Server
from tests.reading.support import client_of, put
from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.memory_s3 import Stored
from tests.servers.scripted import ScriptedServer
from tests.servers.stand_ins import AwsLike

KEYS = ["x/1", "x/it's <&>\"]]>", "x/ö ä+%25", "x/a\u0085b", "x/\U0001f600", "x/2 "]
TOGETHER, ALONE = KEYS[:3] + KEYS[4:5], [KEYS[3], KEYS[5]]
CONTROL = ["x/tab\there", "x/cr\r", "x/\x01"]  # of which rclone stores none


def listed(client: S3Client, bucket: str) -> set[str]:
    return {info.key for page in client.list_objects(bucket) for info in page.object_info}


def test_many_objects_are_deleted_together(server: Server) -> None:
    keys = KEYS + (CONTROL if server.memory else [])
    with server.client() as client:
        for key in [*keys, "y"]:
            put(client, server.bucket, key, b"")
        client.delete_objects(server.bucket, [*keys, "x/not there"])
        assert listed(client, server.bucket) == {"y"}
        refuses = client._runtime().caller.quirks.has(server.bucket, Quirk.NO_DELETE_OBJECTS)
        assert refuses == (server.name == "Gcs")
        client.delete_objects(server.bucket, ["y", "z"])
        assert listed(client, server.bucket) == set()
    if server.memory:
        alone = len(keys) - len(TOGETHER) + (len(TOGETHER) + 3 if refuses else 0)
        assert server.memory.count("POST", "delete") == (1 if refuses else 2)
        assert server.memory.count("DELETE") == alone


def test_more_than_a_thousand_take_a_request_for_each_thousand() -> None:
    aws = AwsLike()
    with aws.serve() as server, client_of(server.endpoint, unsigned=True) as client:
        for number in range(2001):
            put_directly(aws, f"x/{number}")
        client.delete_prefix(aws.bucket, "x/")
    assert aws.objects == {}
    assert (aws.count("POST", "delete"), aws.count("DELETE")) == (2, 1)


class Limited(AwsLike):
    """Says of some keys what it is told to, each time."""

    def __init__(self, says: Callable[[str], str | None]) -> None:
        super().__init__()
        self.says = says

    def _delete_one(self, key: str) -> str:
        code = self.says(key)
        if code is None:
            return super()._delete_one(key)
        return f"<Error><Key>{escape(key)}</Key><Code>{code}</Code><Message>No.</Message></Error>"


def test_what_may_not_be_deleted_is_named_and_all_else_is_deleted() -> None:
    s3 = Limited(lambda key: "AccessDenied" if key in ("x/2", "x/3", "x/4") else None)
    with s3.serve() as server, client_of(server.endpoint, unsigned=True) as client:
        for number in range(6):
            put_directly(s3, f"x/{number}")
        with pytest.raises(S3AccessDeniedError, match="s3:DeleteObject") as refused:
            client.delete_objects(s3.bucket, [f"x/{number}" for number in range(6)])
        assert refused.value.key in str(refused.value)
        assert "and 2 more objects" in str(refused.value)
        with pytest.raises(S3AccessDeniedError) as refused:
            client.delete_objects(s3.bucket, ["x/2", "x/5"])
        assert (refused.value.key, refused.value.operation) == ("x/2", "DeleteObject")
    assert sorted(s3.objects) == ["x/2", "x/3", "x/4"]
    assert s3.count("DELETE") == 0


def test_what_another_attempt_may_delete_is_tried_again() -> None:
    refusals = {"x/1": ["SlowDown", "SlowDown"], "x/2": ["InternalError"], "x/3": ["NoSuchKey"]}
    s3 = Limited(lambda key: refusals[key].pop() if refusals.get(key) else None)
    with s3.serve() as server, client_of(server.endpoint, unsigned=True) as client:
        for number in (0, 1, 2):
            put_directly(s3, f"x/{number}")
        client.delete_objects(s3.bucket, [f"x/{number}" for number in range(4)])
    assert s3.objects == {}
    asked = [request.body.count(b"<Key>") for request in s3.requests]
    assert (asked[0], asked[-1], s3.count("DELETE")) == (4, 1, 0)


def test_attempts_end_and_the_error_names_an_object() -> None:
    s3 = Limited(lambda key: "InternalError" if key == "x/1" else None)
    with s3.serve() as server, client_of(server.endpoint, unsigned=True, max_attempts=2) as client:
        keys = ["x/0", "x/1"]
        with pytest.raises(S3ServiceError, match=r"Not deleted: s3://bucket/x/1$"):
            client.delete_objects(s3.bucket, keys)
    assert s3.count("POST", "delete") == 2


class Refusing(AwsLike):
    """Gives the same response to every request of many deletions; single deletions may be refused as well."""

    def __init__(self, answer: bytes, also: bytes | None = None) -> None:
        super().__init__()
        self._answer, self._also = answer, also

    def _delete_many(self, request: ReceivedRequest) -> bytes:
        return self._answer

    def refuse(self, request: ReceivedRequest) -> bytes | None:
        return self._also if request.method == "DELETE" else None


@pytest.mark.parametrize(
    "answer",
    [
        s3_error(501, "NotImplemented"),
        s3_error(400, "MalformedPOSTRequest"),
        s3_error(405, "MethodNotAllowed"),
        s3_error(403, "AccessDenied"),  # by a rule for POST
        response(404, b"<html>no such page</html>"),
        response(200, b"<DeleteResult></DeleteResult>"),
        response(200, b"all done"),
    ],
    ids=lambda answer: answer.split(b"\r\n")[0].decode(),
)
def test_a_server_that_refuses_deletes_one_by_one_and_is_remembered(answer: bytes) -> None:
    s3 = Refusing(answer)
    with s3.serve() as server, client_of(server.endpoint, unsigned=True, max_attempts=1) as client:
        for number in range(6):
            put_directly(s3, f"x/{number}")
        client.delete_objects(s3.bucket, ["x/0", "x/1", "x/2"])
        client.delete_objects(s3.bucket, ["x/3", "x/4", "x/5"])
    assert s3.objects == {}
    assert (s3.count("POST", "delete"), s3.count("DELETE")) == (1, 6)


@pytest.mark.parametrize(
    ("answer", "also", "error", "tried"),
    [
        (s3_error(404, "NoSuchBucket"), None, S3NotFoundError, 0),
        (s3_error(403, "InvalidAccessKeyId"), None, S3AccessDeniedError, 0),
        (s3_error(500, "InternalError"), None, S3ServiceError, 0),
        (s3_error(403, "AccessDenied"), s3_error(403, "AccessDenied"), S3AccessDeniedError, 2),
    ],
    ids=["no bucket", "no access key", "broken", "no permission"],
)
def test_other_errors_are_no_sign_of_such_a_server(
    answer: bytes, also: bytes | None, error: type[S3Exception], tried: int
) -> None:
    s3 = Refusing(answer, also)
    with s3.serve() as server, client_of(server.endpoint, unsigned=True, max_attempts=1) as client:
        for _ in range(2):
            with pytest.raises(error, match=r"Not deleted|and 1 more object"):
                client.delete_objects(s3.bucket, ["x/0", "x/1"])
    assert (s3.count("POST", "delete"), s3.count("DELETE")) == (2, 2 * tried)


def test_a_server_that_is_away_is_no_such_server() -> None:
    message = "Not deleted: s3://bucket/x/0 and 1 more object"
    with (
        ScriptedServer([]) as server,
        client_of(server.endpoint, unsigned=True, max_attempts=1) as client,
        pytest.raises(S3ConnectionError, match=message),
    ):
        client.delete_objects("bucket", ["x/0", "x/1"])


def test_no_key_is_no_reason_to_delete_a_bucket() -> None:
    aws = AwsLike()
    with aws.serve() as server, client_of(server.endpoint, unsigned=True) as client:
        with pytest.raises(ValueError, match="empty"):
            client.delete_object(aws.bucket, "")
        with pytest.raises(ValueError, match="empty"):
            client.delete_objects(aws.bucket, [""])
    assert aws.requests == []


def put_directly(s3: AwsLike, key: str) -> None:
    s3.objects[key] = Stored(b"", {}, 1_780_000_000, "")
