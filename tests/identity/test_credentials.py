"""Credentials of every kind, from the real providers of botocore."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn
from unittest import mock

import pytest
from botocore.exceptions import BotoCoreError
from botocore.session import Session
from hypothesis import example, given, settings
from hypothesis import strategies as st

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3CredentialsError
from s3torchconnector._identity import Credentials, credentials_provider
from s3torchconnector._identity import _credentials as implementation
from tests.identity.conftest import AwsFiles
from tests.identity.support import set_environment, write_keys


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Process:
    """A ``credential_process`` that plays a script and counts its calls: a step is the minutes until its
    credentials expire, or the text it prints instead."""

    PROGRAM = """
import json, sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NoReturn
folder = Path(sys.argv[1])
with open(folder / "calls", "a") as calls:
    calls.write("x")
number = len((folder / "calls").read_text())
script = json.loads((folder / "script").read_text())
step = script[min(number, len(script)) - 1]
if isinstance(step, str):
    sys.exit(print(step))
expiration = (datetime.now(timezone.utc) + timedelta(minutes=step)).isoformat()
print(json.dumps({"Version": 1, "AccessKeyId": f"KEY{number}", "SecretAccessKey": f"secret{number}",
                  "SessionToken": f"token{number}", "Expiration": expiration}))
"""

    def __init__(self, folder: Path, config: Path) -> None:
        folder.mkdir()
        self._folder = folder
        (folder / "program.py").write_text(self.PROGRAM)
        command = shlex.join([sys.executable, str(folder / "program.py"), str(folder)])
        config.write_text(f"[default]\ncredential_process = {command}\n")

    def plays(self, *steps: float | str) -> None:
        (self._folder / "script").write_text(json.dumps(steps))

    @property
    def calls(self) -> int:
        calls = self._folder / "calls"
        return len(calls.read_text()) if calls.exists() else 0


@pytest.fixture
def process(tmp_path: Path, aws_files: AwsFiles) -> Process:
    return Process(tmp_path / "process", aws_files.config)


def test_unsigned_looks_nowhere(process: Process) -> None:
    provider = credentials_provider(S3ClientConfig(unsigned=True))

    assert provider.get() is None
    with pytest.raises(S3CredentialsError, match="unsigned"):
        provider.refresh(Credentials("a", "b"))
    assert process.calls == 0


def test_the_environment_is_read_first_and_after_a_rejection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provider = credentials_provider(S3ClientConfig())
    set_environment(monkeypatch, AWS_ACCESS_KEY_ID="A", AWS_SECRET_ACCESS_KEY="S", AWS_SESSION_TOKEN="T")

    first = provider.get()
    monkeypatch.setenv("AWS_SESSION_TOKEN", "T2")

    assert first == Credentials("A", "S", "T")
    assert provider.get() is first
    assert provider.refresh(first) == Credentials("A", "S", "T2")
    assert provider.get() == Credentials("A", "S", "T2")


def test_the_same_keys_found_again_are_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provider = credentials_provider(S3ClientConfig())
    set_environment(monkeypatch, AWS_ACCESS_KEY_ID="AKID", AWS_SECRET_ACCESS_KEY="hush", AWS_SESSION_TOKEN="hush")

    with pytest.raises(S3CredentialsError, match=r"'AKID'.*the environment still names the same") as caught:
        provider.refresh(provider.get())

    assert "hush" not in str(caught.value)


def test_environment_needs_no_botocore() -> None:
    program = (
        "import sys\n"
        "from s3torchconnector._config import S3ClientConfig\n"
        "from s3torchconnector._identity import credentials_provider\n"
        "credentials = credentials_provider(S3ClientConfig()).get()\n"
        "assert credentials.access_key == 'A'\n"
        "assert 'botocore' not in sys.modules\n"
    )
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "S"}

    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)


KEYS = {"AWS_ACCESS_KEY_ID": "one", "AWS_SECRET_ACCESS_KEY": "one"}
VALUES = st.sampled_from(["", "one", "two"])
VARIABLES = st.fixed_dictionaries(
    {},
    optional={
        "AWS_ACCESS_KEY_ID": VALUES,
        "AWS_SECRET_ACCESS_KEY": VALUES,
        "AWS_SESSION_TOKEN": VALUES,
        "AWS_SECURITY_TOKEN": VALUES,
        "AWS_PROFILE": st.sampled_from(["", "work", "absent"]),
        "AWS_DEFAULT_PROFILE": st.sampled_from(["", "work", "absent"]),
        "AWS_CREDENTIAL_EXPIRATION": st.sampled_from(["", "2001-01-01T00:00:00Z", "2100-01-01T00:00:00Z"]),
    },
)


@settings(max_examples=100)
@example(variables={**KEYS, "AWS_SESSION_TOKEN": "one", "AWS_SECURITY_TOKEN": "two"}, profile=None)
@example(variables={**KEYS, "AWS_PROFILE": "absent"}, profile=None)
@example(variables={**KEYS, "AWS_DEFAULT_PROFILE": "absent"}, profile=None)
@example(variables={**KEYS, "AWS_CREDENTIAL_EXPIRATION": "2001-01-01T00:00:00Z"}, profile=None)
@given(variables=VARIABLES, profile=st.sampled_from([None, None, "work", "absent"]))
def test_precedence_is_botocores(aws_files: AwsFiles, variables: dict[str, str], profile: str | None) -> None:
    write_keys(aws_files.credentials, default=("DEFAULT", "d"), work=("WORK", "w"))
    with mock.patch.dict(os.environ, variables):
        try:
            session = Session(profile=profile, include_builtin_handlers=False)  # those of clients
            expected = session.get_credentials().get_frozen_credentials()[:3]
        except (BotoCoreError, RuntimeError):
            with pytest.raises(S3CredentialsError):
                credentials_provider(S3ClientConfig(profile=profile)).get()
        else:
            assert credentials_provider(S3ClientConfig(profile=profile)).get() == expected


def test_process_is_asked_again_before_its_credentials_expire(process: Process) -> None:
    # botocore renews what has less than 15 minutes left, and asks once more if the first response is like that.
    process.plays(12, 12, 120)
    clock = Clock()
    provider = credentials_provider(S3ClientConfig(), clock=clock)

    second = provider.get()
    assert second == Credentials("KEY2", "secret2", "token2")
    clock.now += 0.9
    assert provider.get() is second
    clock.now += 0.1
    assert provider.get() == Credentials("KEY3", "secret3", "token3")
    clock.now += 1e6
    assert provider.get().access_key == "KEY3"
    assert process.calls == 3


def test_refresh_asks_once_whatever_the_expiry_says(process: Process) -> None:
    process.plays(120)
    provider = credentials_provider(S3ClientConfig())
    first = provider.get()

    assert provider.refresh(first).access_key == "KEY2"
    # Other threads bring the same rejected credentials; they get what the first one found.
    assert provider.refresh(first).access_key == "KEY2"
    assert provider.get().access_key == "KEY2"
    assert process.calls == 2


def test_a_failed_early_renewal_keeps_valid_keys(process: Process) -> None:
    process.plays(12, 12, "no JSON", 120)
    clock = Clock()
    provider = credentials_provider(S3ClientConfig(), clock=clock)
    second = provider.get()

    clock.now += 1
    assert provider.get() is second
    clock.now += 1
    assert provider.get().access_key == "KEY4"


def test_a_failed_late_renewal_keeps_valid_keys(process: Process) -> None:
    process.plays(5, 5, "no JSON", 120)
    clock = Clock()
    provider = credentials_provider(S3ClientConfig(), clock=clock)
    second = provider.get()

    clock.now += 1
    assert provider.get() is second
    assert process.calls == 3
    clock.now += 1
    assert provider.get().access_key == "KEY4"


def test_renewals_that_fail_become_rarer(process: Process) -> None:
    process.plays(5, 5, "no JSON")
    clock = Clock()
    provider = credentials_provider(S3ClientConfig(), clock=clock)
    for _ in range(200):
        clock.now += 1
        assert provider.get() == Credentials("KEY2", "secret2", "token2")
    assert 5 <= process.calls - 2 <= 15


def test_a_failed_lookup_after_a_rejection_keeps_the_keys(process: Process) -> None:
    process.plays(120, "no JSON", "no JSON", 120)
    provider = credentials_provider(S3ClientConfig())
    first = provider.get()

    for _ in range(2):
        with pytest.raises(S3CredentialsError, match="could not be retrieved"):
            provider.refresh(first)
        assert provider.get() is first

    assert provider.refresh(first).access_key == "KEY4"


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
@pytest.mark.parametrize("wrong", ["hush\r\nx-more: hush", "hush\n", "\rhush", "hush\x00", "hush\u20ac", "hush\x7f"])
def test_keys_that_cannot_be_sent_are_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, wrong: str
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "hush", "AWS_SESSION_TOKEN": "hush"}
    if "\0" in wrong:
        wrong = wrong.replace("\0", "\x01")  # which the environment cannot hold
    set_environment(monkeypatch, **{**keys, name: wrong})

    with pytest.raises(
        S3CredentialsError, match=r"from the environment cannot be used: the .* contains a .*Remove"
    ) as caught:
        credentials_provider(S3ClientConfig()).get()

    assert "hush" not in str(caught.value)


def test_many_threads_look_up_once(process: Process) -> None:
    process.plays(120)
    provider = credentials_provider(S3ClientConfig())
    barrier = threading.Barrier(16)

    def get(_: int) -> Credentials | None:
        barrier.wait()
        return provider.get()

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(get, range(16))) == {Credentials("KEY1", "secret1", "token1")}
    assert process.calls == 1


class AnnouncingLock:
    """A lock that announces each thread that comes for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.arrivals = threading.Semaphore(0)

    def __enter__(self) -> None:
        self.arrivals.release()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@pytest.mark.parametrize("call", ["get", "refresh"])
def test_threads_that_wait_share_the_error(call: str) -> None:
    lock = AnnouncingLock()
    lookups = []

    def fails_when_all_wait() -> NoReturn:
        lookups.append(call)
        for _ in range(8):
            lock.arrivals.acquire()
        raise S3CredentialsError("metadata service unreachable") from TimeoutError()

    provider = implementation._LookedUp(fails_when_all_wait)
    provider._lock = lock  # type: ignore[assignment]
    ask: Callable[[], object] = provider.get if call == "get" else lambda: provider.refresh(Credentials("a", "b"))

    with ThreadPoolExecutor(8) as pool:
        errors = [future.exception() for future in [pool.submit(ask) for _ in range(8)]]

    assert [str(error) for error in errors] == ["metadata service unreachable"] * 8
    assert all(isinstance(error.__cause__, TimeoutError) for error in errors)
    assert len(set(map(id, errors))) == 8
    assert len(lookups) == 1


def test_a_failed_lookup_can_be_repeated(aws_files: AwsFiles) -> None:
    provider = credentials_provider(S3ClientConfig())
    with pytest.raises(S3CredentialsError):
        provider.get()

    write_keys(aws_files.credentials, default=("NOW", "s"))

    assert provider.get() == Credentials("NOW", "s")
