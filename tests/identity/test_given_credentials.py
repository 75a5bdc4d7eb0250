"""Credentials from the program: values, functions that are called in time, and secrets that nothing shows."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector import S3ClientConfig, S3Credentials
from s3torchconnector._errors import S3ConfigurationError, S3CredentialsError
from s3torchconnector._identity import Credentials, credentials_provider, lookup_attempts
from s3torchconnector._identity._given_credentials import _Issuer
from s3torchconnector._sendable import flaw_of, name_of
from tests.identity.support import set_environment

SECRET, TOKEN = "hush-this-is-the-secret", "hush-this-is-the-token"
STATIC = S3Credentials("AKIDGIVEN", SECRET, TOKEN)


class Clock:
    """Monotonic seconds, to space the checks whether to renew."""

    now = 1000.0

    def __call__(self) -> float:
        self.now += 2.0  # so that each call is checked
        return self.now


class Issuer:
    """A function that counts its calls and returns keys that last so many seconds; None for ever."""

    def __init__(self, *lasts: float | Exception | None) -> None:
        self._lasts = list(lasts)
        self.calls = 0

    def __call__(self) -> S3Credentials:
        self.calls += 1
        lasts = self._lasts.pop(0) if len(self._lasts) > 1 else self._lasts[0]
        if isinstance(lasts, Exception):
            raise lasts
        return S3Credentials(f"AKID{self.calls}", SECRET, TOKEN, None if lasts is None else time.time() + lasts)


def top_level(number: int = 0) -> S3Credentials:
    return S3Credentials(f"AKID{number}", SECRET)


@dataclass(frozen=True)
class FromVault:
    password: str

    def __call__(self) -> S3Credentials:
        return STATIC


def provider_of(given: Any) -> Any:
    return credentials_provider(S3ClientConfig(credentials=given), clock=Clock())


# -- values ------------------------------------------------------------------------------------------------------------


def test_a_given_value_overrides_all_other_places(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, AWS_ACCESS_KEY_ID="A", AWS_SECRET_ACCESS_KEY="S")
    provider = provider_of(STATIC)
    assert provider.valid() == provider.get() == Credentials("AKIDGIVEN", SECRET, TOKEN)
    assert not provider.is_due


def test_a_rejected_value_says_where_it_comes_from() -> None:
    provider = provider_of(S3Credentials("AKIDGIVEN", SECRET, TOKEN, datetime(2026, 1, 2, tzinfo=timezone.utc)))
    with pytest.raises(S3CredentialsError, match=r"AKIDGIVEN.*credentials=\.\.\.\) until 2026-01-02") as caught:
        provider.refresh(provider.get())
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(("fields", "text"), [
    ({"access_key": ""}, "access_key must be a string that is not empty, not an empty one"),
    ({"secret_key": None}, "secret_key must be a string that is not empty, not NoneType"),
    ({"session_token": b"hush"}, "session_token must be a string or None, not bytes"),
    ({"secret_key": "hush\n"}, "secret_key contains a line break at character 5 of 5"),
    ({"session_token": "hüsh"}, "session_token contains a character that cannot be sent at character 2 of 4"),
    ({"expiry": datetime(2026, 1, 2)}, "no time zone"),
    ({"expiry": "tomorrow"}, "expiry='tomorrow'"),
    ({"expiry": True}, "expiry=True"),
])  # fmt: skip
def test_a_value_that_cannot_work_is_refused_without_showing_it(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(S3ConfigurationError, match=r"^invalid credentials") as caught:
        S3Credentials(**{"access_key": "AKID", "secret_key": SECRET, **fields})
    assert text in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "hüsh" not in str(caught.value)


@given(st.text())
def test_a_flaw_is_reported_by_its_place_alone(value: str) -> None:
    flaw = flaw_of(value)
    assert bool(flaw) == any(not " " <= letter <= "~" for letter in value)
    if flaw:
        place = int(flaw.split(" at character ")[1].split(" ")[0])
        assert all(" " <= letter <= "~" for letter in value[: place - 1])
        assert not " " <= value[place - 1] <= "~"


@pytest.mark.parametrize("value", [("AKID", SECRET), SECRET, {"secret_key": SECRET}])
def test_another_type_is_refused_without_showing_it(value: Any) -> None:
    with pytest.raises(S3ConfigurationError, match="credentials must be S3Credentials, or a function") as caught:
        S3ClientConfig(credentials=value)
    assert "hush" not in str(caught.value)


def test_unsigned_requests_take_no_credentials() -> None:
    with pytest.raises(S3ConfigurationError, match="unsigned"):
        S3ClientConfig(unsigned=True, credentials=STATIC)


# -- as part of a configuration ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("credentials", [STATIC, partial(top_level, 3), FromVault("hush"), top_level])
def test_a_configuration_shows_no_secret(credentials: Any) -> None:
    shown = repr(S3ClientConfig(credentials=credentials)) + repr(STATIC) + name_of(credentials)
    assert "hush" not in shown
    assert "AKIDGIVEN" in shown
    if credentials is not STATIC:
        assert f"credentials=<{name_of(credentials)}>" in shown


def test_the_name_of_a_function_is_shown() -> None:
    assert name_of(top_level) == name_of(partial(top_level, 3)) == f"{__name__}.top_level"
    assert name_of(FromVault("hush")) == f"{__name__}.FromVault"


@pytest.mark.parametrize("credentials", [STATIC, top_level, FromVault("hush")])
def test_a_configuration_stays_a_value_that_pickles(credentials: Any) -> None:
    config = S3ClientConfig(credentials=credentials)
    again = pickle.loads(pickle.dumps(config))
    assert again == config == copy.deepcopy(config) == copy.copy(config)
    assert hash(again) == hash(config)
    assert config != S3ClientConfig()


def test_pickling_a_local_function_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3torchconnector._s3credentials.sys.modules", {})  # as if no cloudpickle were at work
    config = S3ClientConfig(credentials=lambda: STATIC)
    with pytest.raises(S3ConfigurationError, match=r"<lambda> cannot be pickled.*top level of a module"):
        pickle.dumps(config)
    assert copy.deepcopy(config) is config


def test_pickles_that_hold_functions_by_value_are_not_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3torchconnector._s3credentials.sys.modules", {"ray.cloudpickle": None})
    assert "credentials" in S3ClientConfig(credentials=lambda: STATIC).__getstate__()


# -- functions ---------------------------------------------------------------------------------------------------------


def test_a_function_is_called_once_while_its_keys_last() -> None:
    issuer = Issuer(None)
    provider = provider_of(issuer)
    assert provider.valid() is None
    assert issuer.calls == 0
    first = provider.get()
    assert first == Credentials("AKID1", SECRET, TOKEN)
    assert [provider.valid() for _ in range(5)] == [first] * 5
    assert not provider.is_due
    assert issuer.calls == 1


@pytest.mark.parametrize(("lasts", "is_due"), [(3600.0, False), (1900.0, False), (10.0, False), (-1.0, True)])
def test_keys_are_due_before_they_end_but_not_at_once(lasts: float, is_due: bool) -> None:
    provider = provider_of(Issuer(lasts))
    provider.get()
    provider.valid()
    assert provider.is_due is is_due


@pytest.mark.parametrize(("lasts", "early"), [(3600.0, 900.0), (600.0, 300.0)])
def test_keys_are_renewed_in_the_last_quarter_of_an_hour_or_half_of_their_life(
    lasts: float, early: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    moment = [now]
    monkeypatch.setattr(time, "time", lambda: moment[0])
    issuer = _Issuer(Issuer(lasts))
    issuer.read()
    for later, due, ended in ((lasts - early - 1, False, False), (lasts - early, True, False), (lasts, True, True)):
        moment[0] = now + later
        assert (issuer.refresh_needed(), issuer.refresh_needed(0)) == (due, ended)


def test_ended_keys_are_renewed_before_they_are_used() -> None:
    issuer = Issuer(-1.0, 3600.0)
    provider = provider_of(issuer)
    provider.get()
    assert provider.valid() is None
    assert provider.get().access_key == "AKID2"
    assert provider.valid().access_key == "AKID2"


def test_keys_that_are_still_valid_survive_a_failing_function(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = datetime.now(timezone.utc) + timedelta(seconds=60)
    results: list[Any] = [S3Credentials("AKID1", SECRET, TOKEN, ends)]

    def issue() -> S3Credentials:
        if not results:
            raise OSError("no route to the vault")
        return results.pop()

    provider = provider_of(issue)
    first = provider.get()
    monkeypatch.setattr(time, "time", lambda: ends.timestamp() - 20)
    with caplog.at_level("WARNING"):
        assert provider.get() == first
    assert "no route to the vault" in caplog.text
    assert "hush" not in caplog.text


def test_rejected_keys_are_asked_for_again() -> None:
    issuer = Issuer(None)
    provider = provider_of(issuer)
    first = provider.get()
    assert provider.refresh(first) == Credentials("AKID2", SECRET, TOKEN)
    assert provider.refresh(first) == provider.get() == Credentials("AKID2", SECRET, TOKEN)
    assert issuer.calls == 2


@pytest.mark.parametrize(("given", "text", "attempts"), [
    (Issuer(ConnectionError("refused")), r"tests\.identity.*Issuer.*ConnectionError: refused", 9),
    (Issuer(OSError("no vault")), r"OSError: no vault", 3),
    (Issuer(RuntimeError("expired login")), r"RuntimeError: expired login", 3),
    (lambda: ("AKID", SECRET), r"must return S3Credentials, but returned tuple", 3),
    (lambda: S3Credentials("AKID", f"{SECRET}\n"), r"secret_key contains a line break at character 24 of 24", 3),
])  # fmt: skip
def test_the_error_of_a_function_names_it_and_may_pass(given: Any, text: str, attempts: int) -> None:
    with pytest.raises(S3CredentialsError, match=text) as caught:
        provider_of(given).get()
    assert "hush" not in str(caught.value)
    assert name_of(given) in str(caught.value)
    assert lookup_attempts(caught.value, 9) == attempts


def test_one_thread_calls_the_function_while_no_lock_is_held() -> None:
    entered, release, calls = threading.Event(), threading.Event(), []

    def issue() -> S3Credentials:
        calls.append(threading.get_ident())
        entered.set()
        assert release.wait(20)
        return S3Credentials(f"AKID{len(calls)}", SECRET)

    provider = provider_of(issue)
    with ThreadPoolExecutor(9) as pool:
        try:
            results = [pool.submit(provider.get)]
            assert entered.wait(20)
            results += [pool.submit(provider.get) for _ in range(8)]
            assert provider._lock.acquire(timeout=20)  # not held while the function is called
            provider._lock.release()
            assert provider.valid() is None
        finally:
            release.set()
    assert {result.result().access_key for result in results} == {"AKID1"}
    assert len(calls) == 1


def test_renewals_and_rejections_share_one_call() -> None:
    entered, release = threading.Event(), threading.Event()

    def issue() -> S3Credentials:
        entered.set()
        assert release.wait(20)
        return STATIC

    issuer = _Issuer(issue)
    reads: list[Callable[[], Credentials]] = [issuer.read] * 4
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(reads[0])
        assert entered.wait(20)
        entered.clear()
        others = [pool.submit(read) for read in reads[1:]]
        release.set()
        assert {each.result() for each in [first, *others]} == {Credentials("AKIDGIVEN", SECRET, TOKEN)}
