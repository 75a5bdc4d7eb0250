"""Hundreds of archives: how many requests they cost, and what happens if one of them is bad, or late."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from s3torchconnector import S3Manifest
from s3torchconnector.errors import S3FormatError
from s3torchconnector.testing import S3Server
from tests.interrupts import Interrupts
from tests.servers.http_messages import ReceivedRequest, s3_error
from tests.servers.proxy import RecordingProxy, Replace, StallBody
from tests.shards.support import fill, options, tar
from tests.shards.test_reading import energon

COUNT = 300
ARCHIVES = {f"{i:03}.tar": tar({f"{i}.txt": b"x", f"{i}.jpg": bytes(i)}) for i in range(COUNT)}
INDEXES = {f"{name}.idx": energon(content) for name, content in list(ARCHIVES.items())[::10]}


@pytest.fixture
def shards(s3_server: S3Server, bucket: str) -> str:
    """The URI of a bucket with the archives, each tenth with an index."""
    fill(s3_server, bucket, {**ARCHIVES, **INDEXES})
    return f"s3://{bucket}/"


def requests(proxy: RecordingProxy) -> Counter[str]:
    """How many objects there were requests for, by method and kind. (Of late responses, a request may be repeated.)"""
    asked = {(each.method, each.path) for each in proxy.exchanges if not each.query}
    kinds = Counter(f"{method} {path.partition('.')[2]}" for method, path in asked)
    return Counter({kind: count for kind, count in kinds.items() if "tar" in kind})


def test_a_listed_archive_costs_one_request(s3_server: S3Server, shards: str, proxy: RecordingProxy) -> None:
    manifest = S3Manifest.from_tar(shards, **options(s3_server, proxy.endpoint))
    assert requests(proxy) == {"GET tar": COUNT - len(INDEXES), "GET tar.idx": len(INDEXES)}
    assert len(manifest) == COUNT


def test_a_named_archive_costs_its_index_too(s3_server: S3Server, shards: str, proxy: RecordingProxy) -> None:
    named = S3Manifest.from_tar(f"{shards}{{000..299}}.tar", **options(s3_server, proxy.endpoint))
    asked = requests(proxy)
    # An archive is requested beside its index, unless that comes first.
    assert COUNT - len(INDEXES) <= asked.pop("GET tar") <= COUNT
    assert asked == {"HEAD tar": COUNT, "GET tar.idx": COUNT}
    names = {each.path.rpartition("/")[2] for each in proxy.of("GET")}
    assert {name for name in ARCHIVES if f"{name}.idx" not in INDEXES} <= names
    assert named.fingerprint == S3Manifest.from_tar(shards, **options(s3_server)).fingerprint


def test_one_bad_archive_among_hundreds_names_itself(s3_server: S3Server, shards: str, bucket: str) -> None:
    (s3_server.folder / bucket / "247.tar").write_bytes(ARCHIVES["247.tar"][:700])
    with pytest.raises(S3FormatError, match=r"247\.tar cannot be read as samples: it is truncated"):
        S3Manifest.from_tar(f"{shards}{{200..299}}.tar", **options(s3_server))


@pytest.mark.usefixtures("short_pauses")
def test_errors_of_the_server_cost_a_request_each(s3_server: S3Server, shards: str, proxy: RecordingProxy) -> None:
    failed: set[str] = set()

    def fail(request: ReceivedRequest) -> Replace | None:
        if not request.path.endswith("7.tar") or request.path in failed:
            return None
        failed.add(request.path)
        return Replace(s3_error(503, "ServiceUnavailable"))

    proxy.misbehave = fail
    manifest = S3Manifest.from_tar(shards, **options(s3_server, proxy.endpoint))
    assert len(failed) == COUNT // 10
    assert manifest.fingerprint == S3Manifest.from_tar(shards, **options(s3_server)).fingerprint


def test_ctrl_c_ends_it_although_the_server_does_not_respond(
    s3_server: S3Server, shards: str, proxy: RecordingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3torchconnector._datasets._at_once._SECONDS_TO_STOP", 0.05)
    release, ended = threading.Event(), threading.Event()

    def stall(request: ReceivedRequest) -> Any:
        return StallBody(release) if request.path.endswith("150.tar") else None

    proxy.misbehave = stall
    with Interrupts() as interrupts:

        def interrupt() -> None:
            while not ended.wait(0.01):
                if any(each.path.endswith("151.tar") for each in proxy.of("GET")):
                    interrupts.strike_in("wait")

        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                S3Manifest.from_tar(shards, **options(s3_server, proxy.endpoint))
        finally:
            ended.set()
            release.set()
            thread.join()
