"""The way to the server: credentials, endpoint, proxy, addresses, TLS."""

from __future__ import annotations

import errno
import ipaddress
import os
import ssl
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from s3torchconnector._doctor._findings import Verdict, because_of, failed, passed, sentence, warned
from s3torchconnector._doctor._session import Session, set_in_environment, shortened
from s3torchconnector._errors import (
    S3ConfigurationError,
    S3ConnectionError,
    S3CredentialsError,
    S3Exception,
    S3TimeoutError,
)
from s3torchconnector._identity import NO_CREDENTIALS_ADVICE, ca_bundle
from s3torchconnector._threads import start_thread
from s3torchconnector._wire import _probe as probe

_LOOKUP_STEPS = 2.4  # for credentials: SSO, STS and metadata services take several requests
_DAY = 86400
_CREDENTIALS_FIX = (
    "export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=..., or run `aws configure` or `aws sso login`, or name a "
    "profile: --profile NAME; for a public bucket: --no-sign-request"
)
PROXY_FIX = (
    "correct HTTP_PROXY or HTTPS_PROXY (http://user:password@host:port), start the proxy, or go without it: "
    "export NO_PROXY=HOST"
)
# Codes of X509_verify_cert_error_string(3).
_DATES = {9: "is not valid yet", 10: "has expired"}
_NAMES = (62, 64)


def credentials(session: Session) -> Verdict:
    """Find out who signs."""
    if session.config.unsigned:
        return passed("requests are not signed, as asked for")
    most = _LOOKUP_STEPS * session.step
    try:
        found = probe.find_credentials(session.client._runtime().caller, most)
    except S3TimeoutError:
        return failed(f"the look-up of credentials took more than {most:g} s", _CREDENTIALS_FIX)
    except S3CredentialsError as error:
        return failed(sentence(str(error).removesuffix(NO_CREDENTIALS_ADVICE)), _CREDENTIALS_FIX)
    except S3ConfigurationError:
        return because_of("endpoint")  # which no client can be made for
    if found is None:
        return failed("there are no credentials", _CREDENTIALS_FIX)
    session.credentials = found
    session.hide(found)
    left, is_temporary = found.seconds_left(), found.latest.token is not None
    text = f"{shortened(found.latest.access_key)} from {found.source}{_profile(session)}"
    if left is not None:
        text += f", valid for {_duration(left)}"
    if found.is_renewed and left is not None:
        text += ", and renewed in time"
    elif is_temporary and not found.is_renewed:
        return warned(
            f"{text}: temporary keys, which nothing renews; a job that outlasts them fails",
            "for long jobs: a role, a profile (--profile NAME), or S3ClientConfig(credentials=FUNCTION), which renew",
        )
    return passed(text)


def _profile(session: Session) -> str:
    given = session.config.credentials is not None
    name = "" if given else session.config.profile or os.environ.get("AWS_PROFILE", "")
    return f" (profile {name})" if name else ""


def endpoint(session: Session) -> Verdict:
    """Find out where requests go."""
    target = session.target
    try:
        session.endpoint = found = probe.endpoint_of(target.bucket, target.region, target.endpoint, session.config)
        session.client._runtime()
    except S3ConfigurationError as error:
        if session.credentials is None and session.config.profile:
            return because_of("credentials")  # of a profile that does not exist
        return failed(str(error), "correct --endpoint-url, --region, or the setting that the text names")
    source = "--endpoint-url" if target.endpoint else set_in_environment("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    if not source:
        source = "AWS's own" if found.host.endswith((".amazonaws.com", ".amazonaws.com.cn")) else "the profile"
    return passed(f"{found.scheme}://{found.host_header}{found.path}, for region {found.region} ({source})")


def proxy(session: Session) -> Verdict:
    """Find out whether a proxy is on the way, and go through it."""
    try:
        session.route = route = probe.route_to(session.endpoint)
    except S3ConfigurationError as error:
        return failed(str(error), PROXY_FIX)
    if route.proxy is None:
        return passed("none")
    name = set_in_environment(f"{route.scheme.upper()}_PROXY", "ALL_PROXY") or "the environment"
    text = f"{route.proxy.scheme}://{route.proxy.host}:{route.proxy.port} ({name})"
    try:
        _within(2 * session.step, probe.open_connection, session.config, route._replace(scheme="http"))
    except (S3Exception, FutureTimeout) as error:
        reason = str(error) or f"its name has no address within {2 * session.step:g} s"
        return failed(f"{text} cannot be used: {sentence(reason)}", PROXY_FIX)
    try:
        session.handshake = probe.open_connection(session.config, route)
    except S3Exception as error:
        if not isinstance(error.__cause__, ssl.SSLError) and not isinstance(error, S3TimeoutError):
            return failed(f"{text} does not lead to the endpoint: {sentence(str(error))}", PROXY_FIX)
        session.handshake = error  # of the endpoint's TLS
    return passed(text)


def dns(session: Session) -> Verdict:
    """Look up the addresses of the endpoint."""
    route = session.route
    if route.proxy is not None:
        return passed("left to the proxy")
    try:
        ipaddress.ip_address(route.host)
    except ValueError:
        pass
    else:
        return passed(f"{route.host} is an address")
    try:
        found = _within(session.step, probe.look_up, route)
    except (FutureTimeout, S3ConnectionError) as error:
        reason = error.__cause__ or f"no response of the name server within {session.step:g} s"
        return failed(f"the name {route.host} has no address: {reason}", _name_fix(session))
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    more = f" and {len(addresses) - 4} more" if len(addresses) > 4 else ""
    return passed(f"{route.host} has the addresses {', '.join(addresses[:4])}{more}")


def _name_fix(session: Session) -> str:
    host, bucket = session.route.host, session.target.bucket
    if host.startswith(f"{bucket}.") and not host.endswith(".amazonaws.com"):
        return (
            f"if {host.removeprefix(f'{bucket}.')} has an address, put the bucket into the path: --path-style; in "
            "programs: S3ClientConfig(force_path_style=True)"
        )
    return f"correct --endpoint-url or --region, or the name server: getent hosts {host}"


def connection(session: Session) -> Verdict:
    """Connect to the endpoint, without TLS."""
    if session.route.proxy is not None:
        return passed("through the proxy")
    began = time.perf_counter()
    try:
        addresses = _within(session.step, probe.look_up, session.route)
        probe.reach(addresses, session.step)
    except (FutureTimeout, TimeoutError):
        return failed(
            f"{session.address} does not respond to connections within {session.step:g} s",
            "check the address and the port; a firewall, a security group or a missing VPC endpoint drops packets so",
        )
    except OSError as error:
        what = "refuses connections" if error.errno == errno.ECONNREFUSED else f"cannot be reached ({error})"
        return failed(f"{session.address} {what}", "start the server, or correct the host and port of --endpoint-url")
    return passed(f"{session.address} accepts connections, after {(time.perf_counter() - began) * 1e3:.1f} ms")


def tls(session: Session) -> Verdict:
    """Shake hands, and verify the certificate."""
    route = session.route
    if route.scheme == "http":
        return passed("not used: the endpoint is http://")
    bundle = ca_bundle(session.config.profile)
    trusted = f"{bundle.source}={bundle.path}" if bundle else _system_trust()
    try:
        found = session.handshake if route.proxy else probe.open_connection(session.config, route)
        if isinstance(found, Exception):
            raise found
    except S3Exception as error:
        return _tls_failure(session, error, trusted)
    assert found is not None
    if not session.config.verify_tls:
        return warned(f"{found.version}, and the certificate is not verified", "leave out verify_tls=False")
    text = f"{found.version}, certificate issued by {found.issuer or 'an unnamed CA'}, trusted by {trusted}"
    left = None if found.ends is None else found.ends - time.time()
    if left is not None and left < 14 * _DAY:
        return warned(f"{text}, ends in {_duration(left)}", "have whoever runs the server renew the certificate")
    return passed(text if left is None else f"{text}, valid for {_duration(left)}")


def _tls_failure(session: Session, error: S3Exception, trusted: str) -> Verdict:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _untrusted(session, cause, trusted)
    if isinstance(error, S3ConfigurationError):  # the bundle cannot be read
        return failed(str(error), "export AWS_CA_BUNDLE=/path/to/ca.pem, a file of PEM certificates that exists")
    if session.route.proxy is None and probe.speaks_http(session.route, session.step):
        return failed(
            f"{session.address} speaks HTTP without TLS, and the endpoint is https://",
            f"--endpoint-url http://{session.address} (in programs: endpoint=)",
        )
    return failed(sentence(str(error)), "name an endpoint that speaks TLS, or an http:// one")


def _untrusted(session: Session, cause: ssl.SSLCertVerificationError, trusted: str) -> Verdict:
    host, code = session.route.host, cause.verify_code
    text = f"the certificate of {session.address} is not trusted by {trusted}: {cause.verify_message}"
    if code in _DATES:
        return failed(
            f"the certificate of {session.address} {_DATES[code]}, by this machine's clock",
            "set the clock (sudo timedatectl set-ntp true); if it is right, have the server's certificate renewed",
        )
    if code in _NAMES:
        dotted = f", and for the bucket {session.target.bucket}, whose name has dots, --path-style"
        return failed(
            text,
            f"name the host that the certificate is for instead of {host}: --endpoint-url"
            + (dotted if "." in session.target.bucket else ""),
        )
    return failed(text, "if the server has a private CA: export AWS_CA_BUNDLE=/path/to/that/ca.pem")


def _system_trust() -> str:
    paths = ssl.get_default_verify_paths()
    return f"the system's trust store ({paths.cafile or paths.capath or 'none found'})"


def _within(seconds: float, function: Any, *arguments: Any) -> Any:
    """The result of ``function``. It may not support time limits, like the system's resolver: after the time, it is no
    longer waited for.

    Raises:
        concurrent.futures.TimeoutError: it takes longer.
    """
    outcome: Future[Any] = Future()

    def run() -> None:
        try:
            outcome.set_result(function(*arguments))
        except BaseException as error:
            outcome.set_exception(error)

    start_thread("doctor", run)
    return outcome.result(seconds)


def _duration(seconds: float) -> str:
    for unit, length in (("days", _DAY), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} seconds"
