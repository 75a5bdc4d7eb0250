"""Runs the checks in this process, with short time limits, and looks at the findings."""

from __future__ import annotations

import time
from typing import Any

from s3torchconnector._doctor import Finding, Status, Target, examine
from tests.servers.http_messages import ReceivedRequest, parse_head
from tests.servers.stand_ins import AwsLike

STEP = 2.0  # seconds; enough for a busy machine, and little for a server that is silent


class Aws(AwsLike):
    """A server with the right time, and three objects below ``data/``."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.seconds_to_store = int(time.time()), 0
        for number in range(3):
            body = bytes(1000 + number)
            AwsLike.answer(
                self, ReceivedRequest(parse_head(f"PUT /bucket/data/{number} HTTP/1.1\r\n\r\n".encode()), body)
            )
        self.requests.clear()


def examined(endpoint: str | None, bucket: str = "bucket", prefix: str = "data/", **fields: Any) -> dict[str, Finding]:
    """The findings by their checks."""
    fields = {"seconds": 0.0, "step_seconds": STEP, **fields}
    findings = list(examine(Target(bucket, prefix, endpoint=endpoint, **fields)))
    assert all(len(line.splitlines()) <= 1 for finding in findings for line in (finding.text, finding.fix))
    assert all(finding.fix for finding in findings if finding.status in (Status.WARNING, Status.FAILURE))
    by_check = {finding.check: finding for finding in findings}
    assert len(by_check) == len(findings)
    return by_check


def failure_of(found: dict[str, Finding]) -> Finding:
    """The only failure."""
    [failure] = [finding for finding in found.values() if finding.status is Status.FAILURE]
    return failure


def checks_with(found: dict[str, Finding], status: Status) -> set[str]:
    """The checks that found this."""
    return {check for check, finding in found.items() if finding.status is status}
