"""What the files of a cache look like: nothing that is torn or damaged is believed, or raises anything unexpected."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s3torchconnector._cache._format import (
    BUCKET_SIZE,
    SMALLEST_LIMIT,
    Entry,
    FutureVersionError,
    Geometry,
    NoIndexError,
    State,
    encode_entry,
    encode_record_head,
    find,
    place_for,
    read_header,
    read_record_head,
    read_state,
    segment_name,
    segment_number,
)

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
DIGESTS = st.binary(min_size=20, max_size=20).filter(lambda digest: any(digest[:8]))
ENTRIES = st.builds(Entry, U64, U32, U32)


@given(st.integers(SMALLEST_LIMIT, 2**50))
@example(SMALLEST_LIMIT)
@example(800 * 2**30)
def test_the_files_of_any_limit_fit_into_it(max_bytes: int) -> None:
    geometry = Geometry.of_limit(max_bytes)
    segments = geometry.segments(max_bytes)
    assert segments >= 2
    assert geometry.index_size + segments * geometry.segment_size <= max_bytes
    assert geometry.index_size <= max(max_bytes // 200, 2**16)
    assert read_header(geometry.encoded()) == geometry


@given(st.integers(SMALLEST_LIMIT, 2**50), st.integers(0, 39), st.integers(1, 255))
def test_a_damaged_header_is_refused(max_bytes: int, at: int, change: int) -> None:
    data = bytearray(Geometry.of_limit(max_bytes).encoded())
    data[at] ^= change
    with pytest.raises((NoIndexError, FutureVersionError)):
        read_header(bytes(data))


@given(st.builds(State, U64, U64, U64, U64, U64), st.data())
def test_a_state_is_read_as_written_and_not_if_a_byte_differs(state: State, data: st.DataObject) -> None:
    encoded = bytearray(state.encoded())
    assert read_state(bytes(encoded)) == state
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    assert read_state(bytes(encoded)) is None


@given(st.lists(st.tuples(DIGESTS, ENTRIES), max_size=60), st.integers(0, 2**22))
def test_a_bucket_holds_the_latest_entries(entered: list[tuple[bytes, Entry]], chance: int) -> None:
    bucket, expected = bytearray(BUCKET_SIZE), dict[bytes, Entry]()
    for digest, entry in entered:
        place = place_for(bytes(bucket), digest, chance)
        assert place % 32 == 0
        assert 0 <= place < BUCKET_SIZE
        bucket[place : place + 32] = encode_entry(digest, entry)
        expected[digest[:8]] = entry
        assert find(bytes(bucket), digest) == entry
    found = {tag: find(bytes(bucket), tag) for tag in expected}
    assert all(entry in (None, expected[tag]) for tag, entry in found.items())
    assert sum(entry is not None for entry in found.values()) == min(16, len(expected))


@given(DIGESTS, st.lists(ENTRIES, min_size=17, max_size=17, unique_by=lambda entry: entry.segment))
def test_a_full_bucket_drops_deleted_entries_first(digest: bytes, entries: list[Entry]) -> None:
    bucket = bytearray(BUCKET_SIZE)
    for number, entry in enumerate(entries[:16]):
        bucket[32 * number : 32 * number + 32] = encode_entry(number.to_bytes(20, "big") + b"x" * 4, entry)
    oldest = min(range(16), key=lambda number: entries[number].segment)
    other = b"\xff" + digest[1:]
    assert place_for(bytes(bucket), other) == 32 * oldest


@given(DIGESTS, ENTRIES, DIGESTS, ENTRIES, st.integers(0, 32), st.integers(0, 15))
def test_a_torn_entry_is_not_believed(
    digest: bytes, entry: Entry, other: bytes, other_entry: Entry, cut: int, place: int
) -> None:
    torn = encode_entry(other, other_entry)[:cut] + encode_entry(digest, entry)[cut:]
    bucket = bytearray(BUCKET_SIZE)
    bucket[32 * place : 32 * place + 32] = torn
    written = [(digest[:8], entry), (other[:8], other_entry)]
    for each in (digest, other):
        found = find(bytes(bucket), each)
        assert found is None or (each[:8], found) in written


@given(st.binary(min_size=BUCKET_SIZE, max_size=BUCKET_SIZE), DIGESTS, st.integers(0, 15))
def test_a_bucket_of_anything_has_nothing(bucket: bytes, digest: bytes, place: int) -> None:
    bucket = bucket[: 32 * place] + digest[:8] + bucket[32 * place + 8 :]
    assert find(bucket, digest) is None
    assert place_for(bucket, digest) in range(0, BUCKET_SIZE, 32)


@given(DIGESTS, DIGESTS, st.binary(max_size=100), U64)
def test_a_record_matches_only_its_own_digest_and_bytes(digest: bytes, other: bytes, data: bytes, boot: int) -> None:
    encoded = encode_record_head(digest, data, boot)
    head = read_record_head(encoded, digest)
    assert head is not None
    assert (head.length, head.boot, head.is_of(data)) == (len(data), boot, True)
    assert not head.is_of(data + b"x")
    assert digest == other or read_record_head(encoded, other) is None
    assert read_record_head(encoded[:-1], digest) is None


@given(U64, st.text(max_size=30))
def test_only_names_of_segments_have_a_number(number: int, name: str) -> None:
    assert segment_number(segment_name(number)) == number
    found = segment_number(name)
    assert found is None or segment_name(found) == name


def test_an_index_of_a_later_release_differs_from_a_damaged_one() -> None:
    data = bytearray(Geometry.of_limit(2**30).encoded())
    data[8] += 1
    with pytest.raises(FutureVersionError):
        read_header(bytes(data))
    for text, ours in ((b"", True), (bytes(100), True), (b"something else entirely, for sure, indeed", False)):
        with pytest.raises(NoIndexError) as error:
            read_header(text)
        assert error.value.is_ours is ours
