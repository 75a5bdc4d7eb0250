"""Errors: their builtin bases, the first words of their texts, and their attributes, also after a pickle."""

from __future__ import annotations

import copy
import pickle

import pytest

import s3torchconnectorclient
from s3torchconnector import S3Exception as PublicS3Exception
from s3torchconnector import _errors, errors
from s3torchconnector._errors import S3Exception, S3NotFoundError, S3TimeoutError
from s3torchconnector._wire import CancelledByCaller, operations
from s3torchconnector._wire._service_errors import service_error
from s3torchconnector.testing import S3Server
from tests.servers.http_messages import s3_error
from tests.servers.proxy import RecordingProxy
from tests.wire.support import open_client

KINDS = {name: kind for name, kind in vars(_errors).items() if isinstance(kind, type) and issubclass(kind, S3Exception)}
BUILTINS = {
    "S3ConfigurationError": ValueError,
    "S3ConnectionError": ConnectionError,
    "S3TimeoutError": TimeoutError,
    "S3NotFoundError": FileNotFoundError,
    "S3AccessDeniedError": PermissionError,
    "S3ObjectExistsError": FileExistsError,
}
FACTS = {
    "operation": "GetObject", "bucket": "b", "key": "k", "status": 404, "code": "NoSuchKey", "request_id": "R",
    "attempts": 3,
}  # fmt: skip


@pytest.mark.parametrize("kind", [*KINDS.values(), CancelledByCaller])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_survives_a_pickle(kind: type[S3Exception], protocol: int) -> None:
    error = kind("what happened", **FACTS)
    error.add_note("a note") if hasattr(error, "add_note") else None
    for twin in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is kind
        assert str(twin) == "what happened"
        assert {name: getattr(twin, name) for name in FACTS} == FACTS
        assert vars(twin) == vars(error)


@pytest.mark.parametrize("kind", KINDS.values())
def test_every_error_is_an_s3_exception_without_invented_facts(kind: type[S3Exception]) -> None:
    error = kind("text")
    assert isinstance(error, PublicS3Exception)
    assert str(error) == "text"
    assert {getattr(error, name) for name in FACTS} == {None}


@pytest.mark.parametrize(("name", "builtin"), BUILTINS.items())
def test_errors_are_the_builtins_that_programs_catch(name: str, builtin: type[Exception]) -> None:
    assert issubclass(KINDS[name], builtin)


def test_tree_in_the_docstring_names_every_error() -> None:
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in KINDS)


def test_both_packages_have_one_s3_exception() -> None:
    assert s3torchconnectorclient.S3Exception is PublicS3Exception is S3Exception


def test_message_is_not_printed_like_an_errno() -> None:
    assert str(S3NotFoundError("text", errno=2)) == "text"
    assert (S3NotFoundError("x").errno, S3TimeoutError("x").errno) == (2, 110)


# -- errors of S3, in words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "advice"),
    [
        ("InvalidAccessKeyId", 403, "does not know this access key"),
        ("SignatureDoesNotMatch", 403, "check the secret key"),
        ("InvalidToken", 400, "renew them"),
        ("AccessDenied", 403, "need s3:GetObject on this object"),
        ("InvalidObjectState", 403, "restore it before reading"),
        ("SlowDown", 503, "asks to slow down"),
        ("RequestTimeTooSkewed", 403, "clock is wrong"),
    ],
)
def test_errors_say_what_to_do(code: str, status: int, advice: str) -> None:
    body = s3_error(status, code).partition(b"\r\n\r\n")[2]
    error = service_error(operations.get_object("b", "k"), status, {}, body)
    assert advice in str(error)
    assert code in str(error)
    assert str(error).startswith("Service error: ")
    assert (error.status, error.code, error.request_id) == (status, code, "TEST")


def test_key_that_looks_like_a_folder_is_called_one() -> None:
    body = s3_error(404, "NoSuchKey").partition(b"\r\n\r\n")[2]
    assert "probably a prefix" in str(service_error(operations.get_object("b", "folder/"), 404, {}, body))


@pytest.mark.parametrize(
    ("request_", "action"),
    [
        (operations.head_object("b", "k"), "s3:GetObject"),
        (operations.list_objects("b"), "s3:ListBucket"),
        (operations.upload_part("b", "k", "id", 1, [b"x"]), "s3:PutObject"),
        (operations.complete_multipart_upload("b", "k", "id", []), "s3:PutObject"),
        (operations.delete_object("b", "k"), "s3:DeleteObject"),
        (operations.copy_object("b", "k", "b", "l"), "s3:GetObject and s3:PutObject"),
    ],
)
def test_refused_permissions_are_named(request_: operations.Request, action: str) -> None:
    assert f"need {action}" in str(service_error(request_, 403, {}, b""))


def test_a_refused_head_may_have_wrong_keys_and_points_to_the_doctor() -> None:
    """Its response has no body, which would say."""
    head, get = operations.head_object("b", "k"), operations.get_object("b", "k")
    assert "Or the keys are wrong" in str(service_error(head, 403, {}, b""))
    body = s3_error(403, "AccessDenied").partition(b"\r\n\r\n")[2]
    denied = str(service_error(get, 403, {}, body))
    assert "Or the keys" not in denied
    for text in (denied, str(service_error(head, 403, {}, b""))):
        assert text.endswith("To find the reason: s3torch doctor s3://b/")


# -- against the real server --------------------------------------------------------------------------------------


def test_missing_key(s3_server: S3Server, bucket: str) -> None:
    with open_client(s3_server.endpoint) as client:
        with pytest.raises(FileNotFoundError, match=r"^Service error: The key does not exist") as get:
            client.get_object(bucket, "none").read()
        with pytest.raises(FileNotFoundError, match=r"^Service error: The object was not found") as head:
            client.head_object(bucket, "none")
    for caught, operation in ((get, "GetObject"), (head, "HeadObject")):
        error = caught.value
        assert isinstance(error, S3NotFoundError)
        assert (error.operation, error.bucket, error.key) == (operation, bucket, "none")
        assert (error.status, error.attempts) == (404, 1)
        assert f"s3://{bucket}/none" in str(error)
    assert get.value.code == "NoSuchKey"  # type: ignore[attr-defined]


def test_missing_bucket(s3_server: S3Server) -> None:
    with open_client(s3_server.endpoint) as client:
        with pytest.raises(S3NotFoundError, match=r"^Service error: The bucket does not exist") as get:
            client.get_object("no-such-bucket", "k").read()
        with pytest.raises(S3NotFoundError, match=r"^Service error: The bucket does not exist"):
            list(client.list_objects("no-such-bucket"))
        stream = client.put_object("no-such-bucket", "k")
        stream.write(b"x")
        with pytest.raises(S3NotFoundError, match=r"^Service error: The bucket does not exist"):
            stream.close()
    assert (get.value.code, get.value.bucket) == ("NoSuchBucket", "no-such-bucket")


@pytest.mark.parametrize(
    ("variable", "code", "advice"),
    [
        ("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch", "check the secret key"),
        ("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId", "does not know this access key"),
    ],
)
def test_wrong_keys_name_the_check_that_failed(
    variable: str, code: str, advice: str, proxy: RecordingProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "WRONGKEYVALUE0123456")
    with (
        open_client(proxy.endpoint) as client,
        pytest.raises(PermissionError, match=r"^Service error: access denied") as caught,
    ):
        client.get_object(bucket, "k").read()
    error = caught.value
    assert isinstance(error, S3Exception)
    assert (error.code, error.status, error.attempts) == (code, 403, 1)
    assert code in str(error)
    assert advice in str(error)
    assert len(proxy.exchanges) == 1
