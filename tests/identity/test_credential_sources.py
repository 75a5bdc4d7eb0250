"""Credentials from shared files and over HTTP, and the error if there are none."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3CredentialsError
from s3torchconnector._identity import Credentials, credentials_provider
from tests.identity.conftest import AwsFiles, ScriptedServer
from tests.identity.support import set_environment, write_keys


def expiration(minutes: float) -> str:
    return (datetime.now(timezone.utc) + timedelta(minutes=minutes)).isoformat()


def test_shared_files_are_read_again_after_a_rejection(aws_files: AwsFiles) -> None:
    write_keys(aws_files.credentials, default=("OLD", "s"))
    provider = credentials_provider(S3ClientConfig())
    old = provider.get()
    assert old == Credentials("OLD", "s")

    write_keys(aws_files.credentials, default=("NEW", "s"))

    assert provider.refresh(old) == Credentials("NEW", "s")


def test_a_configured_profile_precedes_the_environment(aws_files: AwsFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    write_keys(aws_files.credentials, default=("DEFAULT", "d"), work=("WORK", "w"))
    set_environment(monkeypatch, AWS_ACCESS_KEY_ID="A", AWS_SECRET_ACCESS_KEY="S")

    assert credentials_provider(S3ClientConfig(profile="work")).get() == Credentials("WORK", "w")


def test_container(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(method: str, path: str) -> str:
        keys = {"AccessKeyId": f"C{len(server.requests)}", "SecretAccessKey": "s", "Token": "t"}
        return json.dumps({**keys, "Expiration": expiration(120)})

    server.answer = answer
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/task")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "pod")
    provider = credentials_provider(S3ClientConfig())

    first = provider.get()

    assert first == Credentials("C1", "s", "t")
    assert [(method, path) for method, path, _, _ in server.requests] == [("GET", "/task")]
    assert server.requests[0][2]["Authorization"] == "pod"
    assert provider.refresh(first).access_key == "C2"


def test_instance_metadata(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(method: str, path: str) -> str:
        if path.endswith("/security-credentials/trainer"):
            keys = {"AccessKeyId": "I", "SecretAccessKey": "s", "Token": "t", "Code": "Success"}
            return json.dumps({**keys, "Expiration": expiration(300)})
        return "trainer" if method == "GET" else "session"

    server.answer = answer
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)

    assert credentials_provider(S3ClientConfig()).get() == Credentials("I", "s", "t")


STS_RESPONSE = """<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result><Credentials>
<AccessKeyId>ROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>
<Expiration>{expiration}</Expiration></Credentials></{action}Result></{action}Response>"""


def test_assumed_role_asks_sts_in_the_clients_region(
    server: ScriptedServer, aws_files: AwsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = lambda method, path: STS_RESPONSE.format(action="AssumeRole", expiration=expiration(60))
    write_keys(aws_files.credentials, base=("BASE", "s"))
    aws_files.config.write_text(
        "[profile trainer]\nrole_arn = arn:aws:iam::123456789012:role/trainer\nsource_profile = base\n"
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)

    provider = credentials_provider(S3ClientConfig(profile="trainer"), region="eu-south-1")

    assert provider.get() == Credentials("ROLE", "s", "t")
    [(_, _, headers, body)] = server.requests
    assert "Action=AssumeRole&" in body
    assert "Credential=BASE/" in headers["Authorization"]
    assert "/eu-south-1/sts/" in headers["Authorization"]


def test_web_identity(server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answer = lambda method, path: STS_RESPONSE.format(
        action="AssumeRoleWithWebIdentity", expiration=expiration(60)
    )
    (tmp_path / "identity").write_text("signed-by-the-cluster")
    set_environment(
        monkeypatch,
        AWS_ENDPOINT_URL_STS=server.url,
        AWS_ROLE_ARN="arn:aws:iam::123456789012:role/pod",
        AWS_WEB_IDENTITY_TOKEN_FILE=str(tmp_path / "identity"),
    )

    assert credentials_provider(S3ClientConfig(), region="eu-south-1").get() == Credentials("ROLE", "s", "t")
    assert "WebIdentityToken=signed-by-the-cluster" in server.requests[0][3]


def test_no_credentials_says_where_and_what_to_do(aws_files: AwsFiles) -> None:
    with pytest.raises(S3CredentialsError) as caught:
        credentials_provider(S3ClientConfig()).get()

    for part in (
        "AWS_ACCESS_KEY_ID",
        "profile 'default'",
        str(aws_files.credentials),
        str(aws_files.config),
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "switched off by AWS_EC2_METADATA_DISABLED",
        "unsigned=True",
    ):
        assert part in str(caught.value)


def test_a_profile_without_keys_says_the_environment_is_ignored(
    aws_files: AwsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws_files.config.write_text("[profile work]\nregion = eu-west-1\n")
    set_environment(monkeypatch, AWS_ACCESS_KEY_ID="A", AWS_SECRET_ACCESS_KEY="S")

    with pytest.raises(S3CredentialsError, match=r"not the environment's.*profile 'work'"):
        credentials_provider(S3ClientConfig(profile="work")).get()


@pytest.mark.parametrize(
    ("config", "cause"),
    [
        ("[profile other]\nregion = eu-west-1\n", "ProfileNotFound"),
        ("[profile work\n", "ConfigParseError"),
        ("[profile work]\ncredential_process = false\n", "CredentialRetrievalError"),
        ("[profile work]\naws_access_key_id = A\n", "PartialCredentialsError"),
        ("[profile work]\nrole_arn = arn:x\nsource_profile = absent\n", "InvalidConfigError"),
        ("[profile work]\ncredential_process = /no/such/program\n", "FileNotFoundError"),
    ],
)
def test_every_failure_is_one_error_with_its_cause(aws_files: AwsFiles, config: str, cause: str) -> None:
    aws_files.config.write_text(config)

    with pytest.raises(S3CredentialsError, match=f"could not be retrieved: {cause}") as caught:
        credentials_provider(S3ClientConfig(profile="work")).get()

    assert type(caught.value.__cause__).__name__ == cause
