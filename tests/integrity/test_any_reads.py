"""Any sequence of reads, of any server, with one flipped bit: no object that was handed out whole ends well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector._errors import S3ChecksumError
from s3torchconnector.testing import S3Server
from tests.integrity.flipping import HEADS, KINDS, LARGE, POLICIES, REFUSED, SMALL, FlippedObject, Recorder
from tests.reading.support import KIB, MIB, PART, client_of, open_object
from tests.servers.scripted import ScriptedServer


def steps_within(size: int, most: int) -> st.SearchStrategy[list[tuple[str, int]]]:
    position = st.one_of(st.integers(0, size), st.sampled_from([0, size - 100, size]))
    step = st.one_of(
        st.tuples(st.sampled_from(["read", "readinto", "read1"]), st.integers(0, size + 5)),
        st.tuples(st.sampled_from(["read", "read1"]), st.integers(1, 2000)),
        st.tuples(st.just("seek"), position),
        st.tuples(st.sampled_from(["read_to_end", "squeeze", "relax"]), st.just(0)),
    )
    return st.lists(step, max_size=most)


class Bucket:
    """A server whose every bucket has one object, and a client that knows nothing of a bucket that is new."""

    def __init__(self) -> None:
        self._objects: dict[str, FlippedObject] = {}
        self._server = ScriptedServer(handler=lambda request: self._objects[request.path.split("/")[1]](request))

    def __enter__(self) -> Bucket:
        endpoint = self._server.__enter__().endpoint
        self.client = client_of(endpoint, memory_budget=20 * MIB, checksum="required")
        return self

    def __exit__(self, *error: Any) -> None:
        self.client.close()
        self._server.__exit__(*error)

    def open(self, obj: FlippedObject, policy: Any) -> Recorder:
        bucket = f"bucket-{len(self._objects)}"
        self._objects[bucket] = obj
        return Recorder(open_object(self.client, bucket, reader_constructor=policy), obj.data)


@pytest.fixture(scope="module")
def buckets(s3_server: S3Server) -> Iterator[Bucket]:
    with Bucket() as buckets:
        yield buckets


def play(buckets: Bucket, data: bytes, draw: st.DataObject, *, most: int, steps: Sequence[int]) -> None:
    """A program of any steps, the last of which read the rest, so that most have read everything."""
    flipped = draw.draw(st.none() | st.integers(0, len(data) - 1))
    only = draw.draw(st.none() | st.integers(1, 3))
    kinds, head = draw.draw(st.sampled_from(KINDS)), draw.draw(st.sampled_from(HEADS))
    obj = FlippedObject(data, kinds, flipped, only, head)
    recorder = buckets.open(obj, POLICIES[draw.draw(st.sampled_from(sorted(POLICIES, reverse=True)))])
    budget, squeezed = buckets.client._runtime().budget, 0
    try:
        for name, value in draw.draw(steps_within(len(data), most)):
            if name == "squeeze":
                squeezed += budget.take(20 * MIB)
            elif name == "relax":
                budget.give_back(squeezed)
                squeezed = 0
            else:
                getattr(recorder, name)(value)
        recorder.read_all(draw.draw(st.sampled_from(steps)))
    except S3ChecksumError:
        assert obj.spoilt or head == REFUSED
    else:
        assert recorder.is_whole
        assert not recorder.is_wrong
    finally:
        budget.give_back(squeezed)
        recorder.reader.close()


@settings(max_examples=80)
@given(draw=st.data())
def test_no_whole_read_succeeds_with_a_flipped_bit(buckets: Bucket, draw: st.DataObject) -> None:
    play(buckets, SMALL, draw, most=12, steps=(5_000, 30_000, 100_001))


@settings(max_examples=8)
@given(draw=st.data())
def test_whatever_is_read_of_objects_of_many_requests(buckets: Bucket, draw: st.DataObject) -> None:
    play(buckets, LARGE, draw, most=6, steps=(300 * KIB, PART, len(LARGE) + 1))
