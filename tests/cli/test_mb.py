"""``s3torch mb``: buckets are made, and not twice."""

from __future__ import annotations

import json

import pytest

from s3torchconnector import S3Client
from s3torchconnector._wire import Request, read_document
from s3torchconnector.testing import S3Server
from tests.cli.support import call
from tests.servers.http_messages import ReceivedRequest, s3_error
from tests.servers.moto_server import MotoServer
from tests.servers.scripted import Reply, ScriptedServer


def test_a_bucket_is_made_once(s3_server: S3Server) -> None:
    done = call("mb", "s3://made-by-mb")
    assert (done.returncode, done.stdout, done.stderr) == (0, "made s3://made-by-mb\n", "")
    assert (s3_server.folder / "made-by-mb").is_dir()
    again = call("mb", "s3://made-by-mb/")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "s3torch: the bucket made-by-mb exists already\n"


def test_its_region_is_the_one_asked_for(moto_server: MotoServer) -> None:
    where = [f"--endpoint-url={moto_server.endpoint}", "--region=eu-west-1"]
    made = call("mb", "s3://made-in-ireland", *where, "--json")
    assert json.loads(made.stdout) == {"uri": "s3://made-in-ireland/", "region": "eu-west-1"}
    with S3Client("us-east-1", endpoint=moto_server.endpoint) as client:
        request = Request("GetBucketLocation", "GET", "made-in-ireland", query=(("location", ""),))
        assert b">eu-west-1</LocationConstraint>" in client._runtime().caller.call(request, read_document)
    assert "exists already" in call("mb", "s3://made-in-ireland", *where).stderr
    assert call("mb", "s3://made-in-virginia", where[0]).returncode == 0  # which may not be named


@pytest.mark.parametrize(
    ("listing", "refusal", "code", "said"),
    [
        ((404, "NoSuchBucket"), "BucketAlreadyOwnedByYou", 0, ""),  # a lost response to an earlier attempt
        ((403, "AccessDenied"), "BucketAlreadyOwnedByYou", 1, "there is already a bucket b-1\n"),
        ((403, "AccessDenied"), "BucketAlreadyExists", 1, "of somebody else: names are unique in all of AWS"),
        ((404, "NoSuchBucket"), "AccessDenied", 1, "s3:CreateBucket"),
    ],
)
def test_a_bucket_that_cannot_be_listed_may_exist(
    monkeypatch: pytest.MonkeyPatch, listing: tuple[int, str], refusal: str, code: int, said: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    bodies: list[bytes] = []

    def answer(request: ReceivedRequest) -> Reply:
        if request.method == "GET":
            return s3_error(*listing)
        bodies.append(request.body)
        return s3_error(403 if refusal == "AccessDenied" else 409, refusal)

    with ScriptedServer(handler=answer) as server:
        done = call("mb", "s3://b-1", "--region=eu-west-1", f"--endpoint-url={server.endpoint}")
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert b"<LocationConstraint>eu-west-1</LocationConstraint>" in bodies[0]


@pytest.mark.parametrize(
    ("uri", "said"),
    [("s3://b/key", "what is in a bucket"), ("s3://b--use1-az4--x-s3", "directory bucket"), ("b", "s3://")],
)
def test_what_names_no_bucket_is_wrong_usage(uri: str, said: str) -> None:
    done = call("mb", uri)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
