"""Bytes from outside: any of them are parsed or refused, with one error, in time that grows with their length.

``corpus/<target>/`` holds what once failed or is awkward, and is replayed first. `make test` tries a few hundred
inputs for each target; `make test-slow` searches for ten seconds each, with a new seed each time: a finding is printed
as an input, which belongs into the corpus once it is understood.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, Target, outcome

_CORPUS = Path(__file__).parent / "corpus"
_FILES = sorted(path for path in _CORPUS.glob("*/*") if path.is_file())
_SEARCH_SECONDS = 10.0
_BATCH = 500
_MOST_SECONDS = 10.0  # of processor time; what takes linear time takes one, quadratic time minutes

BOUNDED = settings(max_examples=300, derandomize=True, database=None)


def check(target: Target, data: bytes) -> None:
    outcome(lambda: target.run(data), target.error)


def test_the_corpus_has_something_for_each_target() -> None:
    assert {path.parent.name for path in _FILES} == set(TARGETS)


@pytest.mark.parametrize("path", _FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_corpus(path: Path) -> None:
    check(TARGETS[path.parent.name], path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_some_inputs(name: str) -> None:
    @BOUNDED
    @given(TARGETS[name].inputs())
    def search(data: bytes) -> None:
        check(TARGETS[name], data)

    search()


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_many_inputs(name: str) -> None:
    """Also the corpus's files, changed in places."""
    seeds = [path.read_bytes() for path in _FILES if path.parent.name == name]
    inputs = TARGETS[name].inputs() | mutations(seeds)

    @settings(BOUNDED, max_examples=_BATCH, derandomize=False)
    @given(inputs)
    def search(data: bytes) -> None:
        check(TARGETS[name], data)

    end = time.monotonic() + _SEARCH_SECONDS
    while time.monotonic() < end:
        search()


@st.composite
def mutations(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = draw(st.integers(start, min(len(data), start + 8)))
        data = data[:start] + draw(st.binary(max_size=4) | st.just(data[start:stop] * 2)) + data[stop:]
    return data


# Each is long in one way. Heads have at most 64 KiB; documents and headers are tried at what a server could send.
_LONG = {
    "heads": [
        b"HTTP/1.1 200 OK\r\na: x" + b" " * 60_000 + b"y",
        b"HTTP/1.1 200 OK\r\n" + b"a:\t" * 20_000,
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 10_000 + b"no colon",
        b"HTTP/1.1 200 OK\r\n" + b"Content-Length: 5\r\n" * 3_000 + b"x: y",
        b"HTTP/1.1 " + b"2" * 60_000,
    ],
    "chunks": [b"1\r\na\r\n" * 30_000, b"0" * 60_000, b"0\r\n" + b"a: b\r\n" * 60_000, b"ffff\r\n" + b"a" * 60_000],
    "documents": [
        b"<a>" * 100_000 + b"</a>" * 100_000,
        b"<Error>" + b"<Code>&amp;</Code>" * 50_000 + b"</Error>",
        b"<a " + b" ".join(b'a%d=""' % i for i in range(50_000)) + b"/>",
        b"<" * 500_000,
    ],
    "listings": [
        b"<ListBucketResult>" + b"<Contents>" * 50_000 + b"</Contents>" * 50_000 + b"</ListBucketResult>",
        b"<ListBucketResult><Contents><Key>" + b"k" * 500_000 + b"</Contents></ListBucketResult>",
        b"<ListBucketResult>" + b"<Contents><Key>k</Key>" * 20_000 + b"</Contents></ListBucketResult>",
        b"<ListBucketResult><Contents><Key>k</Key>" + b" " * 500_000 + b"</Contents></ListBucketResult>",
        b"<Contents><Key></Key><LastModified></LastModified><ETag></ETag>"
        + b"<ChecksumType></ChecksumType>   " * 20_000 + b"</Contents>",
    ],
    "content-ranges": [b"bytes " + b"0" * 60_000, b"bytes 0-" + b"9" * 60_000 + b"/1"],
    "safetensors": [
        b"{" + b",".join(b'"%d":0' % i for i in range(50_000)) + b',"49999":0}',
        b'{"a":' + b"[" * 200_000,
        b'{"a":{"dtype":"U8","shape":[' + b",".join([b"1"] * 100_000) + b'],"data_offsets":[0,1]}}',
        b'{"a":' + b"9" * 200_000 + b"}",
        b'{"' + b"a" * 500_000 + b'":0}',
    ],
}  # fmt: skip


@pytest.mark.parametrize(("name", "data"), [(name, data) for name in TARGETS for data in _LONG[name]])
def test_long_inputs_take_no_more_than_linear_time(name: str, data: bytes) -> None:
    started = time.thread_time()
    check(TARGETS[name], data)
    assert time.thread_time() - started < _MOST_SECONDS
