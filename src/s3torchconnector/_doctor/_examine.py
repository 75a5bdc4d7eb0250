"""All checks, what each needs, and the loop that tries them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

from s3torchconnector._doctor import _machine, _reading, _response, _throughput, _way, _writing
from s3torchconnector._doctor._findings import Finding, Verdict, because_of, failed, sentence, skipped, warned
from s3torchconnector._doctor._session import Session, Target, TimeIsUp
from s3torchconnector._errors import S3ConnectionError, S3Exception, S3ThrottledError
from s3torchconnector._plural import counted


class Check(NamedTuple):
    """One check, and the earlier ones without which it cannot be tried."""

    name: str
    run: Callable[[Session], Verdict]
    needs: tuple[str, ...] = ()


_CHECKS = (
    Check("versions", _machine.versions),
    Check("credentials", _way.credentials),
    Check("endpoint", _way.endpoint),
    Check("proxy", _way.proxy, ("endpoint",)),
    Check("dns", _way.dns, ("proxy",)),
    Check("connection", _way.connection, ("dns",)),
    Check("tls", _way.tls, ("connection",)),
    Check("server", _response.server, ("tls",)),
    Check("clock", _response.clock, ("server",)),
    Check("region", _response.region, ("server",)),
    Check("keys", _response.keys, ("credentials", "region")),
    Check("bucket", _response.bucket, ("keys",)),
    Check("list", _reading.list_objects, ("bucket",)),
)
_WRITES = (Check("put", _writing.put, ("bucket",)),)
_READS = (
    Check("get", _reading.get, ("bucket",)),
    Check("head", _reading.head, ("get",)),
    Check("ranges", _reading.ranges, ("get",)),
    Check("if-match on get", _reading.if_match, ("get",)),
    Check("start-after", _reading.start_after, ("list",)),
)
_MORE_WRITES = (
    Check("if-none-match on put", _writing.if_none_match, ("put",)),
    Check("if-match on put", _writing.if_match, ("put",)),
    Check("checksums", _writing.checksums, ("put",)),
    Check("copy", _writing.copy, ("put", "get")),
    Check("multipart", _writing.multipart, ("put",)),
    Check("abort", _writing.abort, ("multipart",)),
    Check("list uploads", _writing.list_uploads, ("put",)),
    Check("delete", _writing.delete, ("put",)),
)
_NO_WRITES = (Check("writing", lambda session: skipped("not tried: add --write to test it"), ("bucket",)),)
_LIMITS = (
    Check("retries", _response.retries, ("server",)),
    Check("open files", _machine.open_files),
    Check("threads", _machine.threads),
    Check("memory", _machine.memory),
    Check("shared memory", _machine.shared_memory),
)
_MEASUREMENT = (Check("throughput", _throughput.throughput, ("get",)),)


def examine(target: Target) -> Generator[Finding, None, None]:
    """Yield the findings, each as soon as it is known. Close the iterator if you leave it early (``closing``)."""
    session = Session(target)
    try:
        yield from _Examination(session).findings()
    finally:
        try:
            if not (session.scratch.is_empty or session.scratch.was_given_up):
                session.scratch.remove(session.caller)
        finally:
            session.close()


class _Examination:
    """Tries checks in order, and remembers why others cannot be tried.

    ``_causes`` has for each check that blocks others the name of the check that failed; ``_broken`` is the check after
    which no further request is sent, because the server has stopped responding to them.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._causes: dict[str, str] = {}
        self._broken: str | None = None

    def findings(self) -> Iterator[Finding]:
        target = self._session.target
        writes = (*_WRITES, *_READS, *_MORE_WRITES) if target.write else (*_READS, *_NO_WRITES)
        for check in (*_CHECKS, *writes):
            yield from self._try(check)
        yield from self._left_behind()
        for check in (*_LIMITS, *(_MEASUREMENT if target.seconds > 0 else ())):
            yield from self._try(check)

    def _try(self, check: Check) -> Iterator[Finding]:
        cause = next((self._causes[name] for name in check.needs if name in self._causes), None)
        if check.needs and self._broken is not None:
            cause = cause or self._broken
        if cause is not None:
            verdict = because_of(cause)
        else:
            try:
                verdict = check.run(self._session)
            except TimeIsUp:
                yield self._end("time", _too_slow(self._session))
                verdict = because_of("time")
            except S3Exception as error:
                known = _known(error)
                if known is not None:
                    yield self._end(*known)
                    verdict = because_of(known[0])
                else:
                    verdict = _unexpected(error)
                    if isinstance(error, S3ConnectionError) or (error.status or 0) >= 429:
                        self._broken = check.name
            except OSError as error:
                verdict = _unexpected(error)
        if verdict.blocks:
            self._causes[check.name] = verdict.cause or check.name
        yield self._finding(check.name, verdict)

    def _end(self, name: str, verdict: Verdict) -> Finding:
        """The finding after which no further request is sent."""
        self._broken = name
        return self._finding(name, verdict)

    def _left_behind(self) -> Iterator[Finding]:
        """Remove what is left, and say so if it stays, unless the finding of ``delete`` has said all of it."""
        scratch, is_told = self._session.scratch, self._causes.get("delete") == "delete"
        if scratch.is_empty:
            return
        scratch.remove(self._session.caller)
        scratch.was_given_up = True
        if scratch.uploads or (scratch.keys and not is_told):
            text = f"what was written could not be removed: {scratch}"
            yield self._finding("scratch", failed(text, scratch.how_to_remove(self._session.options)))
        elif not (scratch.is_known or scratch.is_empty):
            text = f"an upload may remain below {scratch}: whether it was created is unknown"
            yield self._finding("scratch", warned(text, "have a lifecycle rule abort unfinished uploads"))

    def _finding(self, name: str, verdict: Verdict) -> Finding:
        printable = self._session.printable
        return Finding(name, verdict.status, printable(sentence(verdict.text)), printable(verdict.fix))


def _known(error: S3Exception) -> tuple[str, Verdict] | None:
    """The finding that an error of any request is, after which no other makes sense."""
    if isinstance(error, S3ThrottledError) and error.code:
        return "throttling", _throttled(error)
    if error.status == 407:
        return "proxy", failed(str(error), _way.PROXY_FIX)
    return None


def _unexpected(error: Exception) -> Verdict:
    return failed(str(error), "see Troubleshooting in the guide, which is sorted by symptom; then try again")


def _throttled(error: S3ThrottledError) -> Verdict:
    return failed(
        f"the server asks to slow down, in {error.attempts or 1} attempts one after the other: {error}",
        "wait, and stop what else sends requests to the bucket; for jobs: lower max_connections, use larger objects or "
        "more prefixes (guide: Troubleshooting, Throttling)",
    )


def _too_slow(session: Session) -> Verdict:
    return failed(
        f"the server is slow: {counted(session.requests, 'request')} took more time than all may",
        "run it from a machine nearer to the bucket, or ask whoever runs the server or the network between",
    )
