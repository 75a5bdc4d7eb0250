"""The first responses: whether it is S3, its clock, the bucket's region, whether it takes our keys, and the bucket."""

from __future__ import annotations

import re
import time

from s3torchconnector._doctor._findings import Verdict, because_of, failed, passed, sentence, warned
from s3torchconnector._doctor._session import Session
from s3torchconnector._errors import (
    S3ConnectionError,
    S3CredentialsError,
    S3Exception,
    S3ProtocolError,
    S3ServiceError,
    S3ThrottledError,
    S3TimeoutError,
)
from s3torchconnector._plural import counted
from s3torchconnector._wire import _probe as probe
from s3torchconnector._wire import operations, parse_list_page, read_document

_REFUSED_SECONDS = 15 * 60  # that clocks may differ before S3 refuses requests
_DOUBTFUL_SECONDS = 5 * 60  # other servers may refuse sooner
_SKEWED = "RequestTimeTooSkewed"
_CLOCK_FIX = "set this machine's clock: sudo timedatectl set-ntp true (of a container: on its host)"
_TITLE = re.compile(rb"<title[^>]*>([^<]{1,80})", re.IGNORECASE)
_NOT_S3_FIX = (
    "name the address of the S3 API: --endpoint-url (MinIO: port 9000, not the console's); if a web page asks for a "
    "login, log in to this network first"
)


def server(session: Session) -> Verdict:
    """Ask for a page of the listing, and see whether an S3 server responds, with any response."""
    target = session.target
    request = operations.list_objects(target.bucket, target.prefix)
    try:
        session.reply = reply = session.ask(request)
        _refuse_other_than_s3(reply)
    except S3ThrottledError as error:
        if error.code:
            raise  # S3 says so
        return failed(_without_document(error), _NOT_S3_FIX)
    except S3ServiceError as error:
        if error.code:
            return failed(str(error), "try again later; if it stays, ask whoever runs the server")
        return failed(_without_document(error), _NOT_S3_FIX)
    except (S3ConnectionError, S3ProtocolError) as error:
        return _no_s3(session, error)
    name = reply.headers.get("server")
    who = f"the server calls itself {name}" if name else "the server does not name itself"
    text = f"{who}, and responds as S3 does, after {reply.seconds * 1e3:.0f} ms"
    return passed(text if reply.is_good else f"{text} (HTTP {reply.status} {reply.code})")


def _without_document(error: S3Exception) -> str:
    return f"HTTP {error.status} and no document of S3: a gateway or proxy responds instead of a server"


def _refuse_other_than_s3(reply: probe.Reply) -> None:
    """Refuse what no S3 server would say.

    Raises:
        S3ProtocolError: it is not S3's.
    """
    if reply.is_good:
        parse_list_page(reply.body)
    elif reply.document is None and (reply.body or reply.status not in (401, 403, 404)):
        raise S3ProtocolError(f"HTTP {reply.status}")


def _no_s3(session: Session, error: S3Exception) -> Verdict:
    where, route, reply = session.address, session.route, getattr(session, "reply", None)
    may_be_tls = route.scheme == "http" and route.proxy is None and (reply is None or reply.status == 400)
    if may_be_tls and probe.speaks_tls(route, session.step):
        return failed(
            f"{where} speaks TLS, and the endpoint is http://",
            f"--endpoint-url https://{where} (in programs: endpoint=)",
        )
    if isinstance(error, S3TimeoutError):
        return failed(
            f"{where} accepts connections, and sends no response within {session.step:g} s",
            "check that the port is that of the S3 API; if it is, restart the server or what stands before it",
        )
    if isinstance(error, S3ProtocolError):
        return failed(f"{where} is not an S3 server: {_described(session, error)}", _NOT_S3_FIX)
    return failed(f"{where} closes connections without a response: {sentence(str(error))}", _NOT_S3_FIX)


def _described(session: Session, error: S3Exception) -> str:
    """What responds instead."""
    reply = getattr(session, "reply", None)
    if reply is None:
        return sentence(str(error))
    title = _TITLE.search(reply.body)
    kind = reply.headers.get("content-type", "").partition(";")[0] or "no content type"
    named = f" with the title {title[1].decode(errors='replace').strip()!r}" if title else ""
    leads = f", which leads to {reply.headers['location']}" if "location" in reply.headers else ""
    return f"it sends HTTP {reply.status} and {kind}{named}{leads}"


def clock(session: Session) -> Verdict:
    """Compare this machine's clock with the server's."""
    reply = session.reply
    theirs = reply.server_time
    ahead = None if theirs is None else time.time() - reply.seconds / 2 - theirs
    how = "differs from the server's" if ahead is None else _difference(ahead)
    if reply.code == _SKEWED or abs(ahead or 0.0) > _REFUSED_SECONDS:
        text = f"this machine's clock {how}; S3 refuses requests that are 15 minutes off"
        return failed(f"{text} (this client corrects it, others do not)", _CLOCK_FIX, blocks=False)
    if ahead is None:
        return passed("the server does not tell the time, and accepts ours")
    if abs(ahead) > _DOUBTFUL_SECONDS:
        return warned(f"this machine's clock {how}; S3 refuses requests that are 15 minutes off", _CLOCK_FIX)
    return passed(f"this machine's clock {how}")


def _difference(ahead: float) -> str:
    if abs(ahead) < 2.0:  # the header has whole seconds
        return "agrees with the server's"
    size = f"{abs(ahead):.0f} s" if abs(ahead) < 120 else f"{abs(ahead) / 60:.0f} minutes"
    return f"is {size} {'ahead of' if ahead > 0 else 'behind'} the server's"


def region(session: Session) -> Verdict:
    """Compare the region with the bucket's."""
    reply, ours = session.reply, session.endpoint.region
    theirs = reply.headers.get("x-amz-bucket-region") or (reply.document.region if reply.document else None)
    is_refused = reply.code in probe.REGION_CODES or reply.status in (301, 307)
    if theirs and theirs != ours and is_refused:
        text = f"the bucket is in {theirs}, and the client is made for {ours}"
        text += ": requests follow it, which costs each client a round trip"
        return failed(text, f"--region {theirs}; in programs: region={theirs!r}", blocks=False)
    if is_refused:
        fix = f"ask for the bucket's region: aws s3api get-bucket-location --bucket {session.target.bucket}"
        return failed(f"the server refuses region {ours} ({reply})", f"{fix}; then --region REGION")
    return passed(f"{ours}; the server names {theirs or 'none'}")


def keys(session: Session) -> Verdict:
    """See whether the server accepts the signature. What a job would follow, renew or correct is, before."""
    if session.config.unsigned:
        return passed("requests are not signed, as asked for")
    if not session.reply.is_good:
        try:
            _settle(session)
        except S3CredentialsError as error:
            return failed(str(error), f"renew the keys in {session.source}: aws sso login, or new AWS_* variables")
    reply = session.reply
    if reply.code == _SKEWED:
        return because_of("clock")
    if reply.code in probe.CREDENTIAL_CODES or reply.status == 401:
        return failed(str(reply), _keys_fix(session, reply.code))
    return passed("the server accepts the signature")


def _settle(session: Session) -> None:
    """Ask again as a job would, so that the client learns the region, the time and new keys; then look once more."""
    request = operations.list_objects(session.target.bucket, session.target.prefix)
    try:
        session.caller.call(request, read_document, limit=2 * session.step)
    except S3ServiceError as error:
        if isinstance(error, S3ThrottledError):
            raise
    session.reply = session.ask(request)


def retries(session: Session) -> Verdict:
    """See whether all requests so far have succeeded at once, as far as the server let them."""
    figures = session.caller.figures.metrics()
    again, total = figures.retries, figures.request_count
    if not again:
        return passed(f"none of {counted(total, 'request')} had to be sent again")
    return warned(
        f"{again} of {counted(total, 'request')} had to be sent again, for lost connections, HTTP 5xx or SlowDown",
        "run it again; if that stays, look at the log for the reasons (guide: Troubleshooting)",
    )


def _keys_fix(session: Session, code: str) -> str:
    source = session.source
    if code in probe.EXPIRED_CODES or code == "InvalidToken":
        return f"renew the keys in {source}: aws sso login, or new AWS_* variables with their AWS_SESSION_TOKEN"
    if code == "SignatureDoesNotMatch":
        return f"correct the secret key in {source}; if it is right, look for a proxy that changes requests"
    return f"correct the access key in {source}, or name other credentials: --profile NAME"


def bucket(session: Session) -> Verdict:
    """See whether the bucket exists."""
    reply, name = session.reply, session.target.bucket
    if reply.status == 404:
        return failed(
            f"there is no bucket {name!r} at {session.address} ({reply})",
            f"correct the name, or create it: s3torch mb s3://{name} {session.options}",
        )
    return passed(f"{name} exists" if reply.is_good else f"{name} may exist: the server does not say that it does not")
