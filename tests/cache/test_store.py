"""A cache directory: what is found is right, whatever happened to the processes that wrote it, and it never grows."""

from __future__ import annotations

import os
import random
import signal
import struct
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3torchconnector._cache._format import (
    INDEX_NAME,
    RECORD_HEAD,
    STATE_AT,
    Geometry,
    segment_name,
    segment_number,
    this_boot,
)
from s3torchconnector._cache._index import UnusableError
from s3torchconnector._cache._pace import Pace
from s3torchconnector._cache._store import DamagedError, Store
from tests.cache.support import FORK, MIB, add, age, content, digest, load, processes, size_of, size_of_directory

LIMIT = 2 * MIB


def segments_of(path: Path) -> list[int]:
    numbers = (segment_number(name) for name in os.listdir(path))
    return sorted(number for number in numbers if number is not None)


# -- one process ------------------------------------------------------------------------------------------------------

STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 30)),
    st.tuples(st.just("load"), st.integers(0, 30)),
    st.tuples(st.just("damage"), st.integers(0, 2**32)),
    st.tuples(st.sampled_from(["open", "open another", "clear"]), st.just(0)),
)


def damage(path: Path, seed: int) -> None:
    """Change a byte of a file."""
    chance = random.Random(seed)
    name = chance.choice(sorted(os.listdir(path)))
    size = (path / name).stat().st_size
    if size:
        with open(path / name, "r+b") as file:
            at = chance.randrange(size if chance.random() < 0.5 else min(size, 4096))
            before = os.pread(file.fileno(), 1, at)
            os.pwrite(file.fileno(), bytes([before[0] ^ chance.randrange(1, 256)]), at)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, max_size=60))
def test_a_store_agrees_with_a_dict(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        stores = [Store(folder, LIMIT, always_verify=True)]
        stored: dict[int, bytes] = {}
        is_damaged = False  # then anything may be missing, and nothing may be wrong
        for step, number in steps:
            store = stores[number % len(stores)]
            if step == "add" and add(store, number):
                stored[number] = content(number)
            elif step == "load":
                try:
                    found = load(store, number)
                except DamagedError:
                    assert is_damaged
                    found = None
                assert found == stored.get(number) or (is_damaged and found in (None, content(number)))
            elif step == "damage":
                damage(path, number)
                is_damaged = True
            elif step == "clear":
                assert store.space.clear(0)
                stored.clear()
            elif step.startswith("open"):
                try:
                    another = Store(folder, LIMIT, always_verify=True)
                except UnusableError:
                    assert is_damaged
                    return
                stores = [another, *stores] if step == "open another" else [another]
            assert size_of_directory(path) <= LIMIT


def test_the_oldest_is_deleted_to_make_room(tmp_path: Path) -> None:
    store = Store(str(tmp_path), LIMIT)
    add(store, 400)
    (first_segment,) = segments_of(tmp_path)
    numbers = range(400)  # about 8 MiB
    for number in numbers:
        assert add(store, number)
        assert load(store, number) == content(number)
        assert size_of_directory(tmp_path) <= LIMIT
        age(tmp_path)
    present = [number for number in numbers if load(store, number) is not None]
    assert present == list(numbers[-len(present) :])
    assert sum(size_of(number) for number in present) > LIMIT / 2
    stats, segments = store.stats(), segments_of(tmp_path)
    assert stats["entries"] == len(present)
    assert stats["bytes"] == store.geometry.index_size + len(segments) * store.geometry.segment_size
    assert stats["evictions"] == segments[0] - first_segment


def test_segments_in_use_are_not_deleted(tmp_path: Path) -> None:
    store = Store(str(tmp_path), LIMIT)
    for number in range(400):
        add(store, number)
    present = [number for number in range(400) if load(store, number) is not None]
    assert present == list(range(len(present)))
    assert sum(size_of(number) for number in present) > LIMIT / 2
    age(tmp_path)
    store = Store(str(tmp_path), LIMIT)  # another process, which has not read yet
    assert load(store, 0) == content(0)
    assert load(store, present[-1]) == content(present[-1])
    for number in range(400, 800):
        add(store, number)
    assert load(store, 0) == content(0)
    assert load(store, present[-1]) == content(present[-1])
    assert load(store, present[len(present) // 2]) is None
    assert load(store, 400) == content(400)


def test_stored_objects_are_not_stored_again(tmp_path: Path) -> None:
    store = Store(str(tmp_path), LIMIT)
    assert add(store, 1)
    before = size_of_directory(tmp_path)
    assert not add(store, 1)
    assert not add(Store(str(tmp_path), LIMIT), 1)
    assert size_of_directory(tmp_path) == before


def test_an_object_larger_than_a_segment_is_not_stored(tmp_path: Path) -> None:
    store = Store(str(tmp_path), LIMIT)
    most = store.geometry.segment_size - RECORD_HEAD
    assert not store.add(digest(1), bytes(most + 1))
    assert store.add(digest(1), bytes(most))
    entry = store.find(digest(1))
    assert entry is not None
    assert store.load(digest(1), entry) == bytes(most)


def test_a_segment_that_a_process_has_left_is_filled_by_the_next(tmp_path: Path) -> None:
    for number in range(10):
        assert add(Store(str(tmp_path), LIMIT), number)
    assert len(segments_of(tmp_path)) == 1
    assert all(load(Store(str(tmp_path), LIMIT), number) == content(number) for number in range(10))


def test_two_that_write_at_a_time_have_a_segment_each(tmp_path: Path) -> None:
    stores = [Store(str(tmp_path), LIMIT) for _ in range(2)]
    assert all(add(stores[number % 2], number) for number in range(10))
    assert len(segments_of(tmp_path)) == 2
    assert all(load(store, number) == content(number) for store in stores for number in range(10))


def test_reading_keeps_no_descriptors(tmp_path: Path) -> None:
    store = Store(str(tmp_path), LIMIT)
    for number in range(300):
        add(store, number)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(300):
        load(store, number)
    assert len(os.listdir("/proc/self/fd")) == before


# -- many processes ---------------------------------------------------------------------------------------------------


def write_for_ever(process: int, path: str, limit: int) -> None:
    number = process
    while True:
        store = Store(path, limit)
        for _ in range(50):
            add(store, number)
            number += 4


def test_the_directory_is_never_larger_than_its_limit(tmp_path: Path) -> None:
    """Also while four processes write, and are killed and restarted."""
    sizes: list[int] = []
    for _ in range(3):
        with processes(4, write_for_ever, str(tmp_path), LIMIT):
            until = time.monotonic() + 0.4
            while time.monotonic() < until:
                sizes.append(size_of_directory(tmp_path))
                age(tmp_path)
    assert LIMIT * 0.7 < max(sizes) <= LIMIT
    assert Store(str(tmp_path), LIMIT).stats()["evictions"] > 4


def write_and_tell(process: int, path: str, start: int, told: Any) -> None:
    """Store them one at a time, and report the stored ones through a pipe."""
    store = Store(path, 512 * MIB)
    for number in range(start + 1000 * process, start + 1000 * (process + 1)):
        if add(store, number):
            os.write(told, struct.pack("<I", number))


def test_processes_that_are_killed_leave_everything_right(tmp_path: Path) -> None:
    """Killed at any moment: what they said was stored is there, and whatever is there is right, to the byte."""
    chance, told = random.Random(5), set[int]()
    for attempt in range(20):
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        with processes(2, write_and_tell, str(tmp_path), 2000 * attempt, writer) as started:
            for process in started:
                time.sleep(chance.random() * 0.02)
                os.kill(process.pid, signal.SIGKILL)
        os.close(writer)
        while data := os.read(reader, 4096 * 4):
            told |= {number for (number,) in struct.iter_unpack("<I", data)}
        os.close(reader)
    store = Store(str(tmp_path), 512 * MIB, always_verify=True)
    assert len(told) > 100
    assert store.stats()["evictions"] == 0
    assert all(load(store, number) == content(number) for number in told)
    others = [number for number in range(50_000) if store.find(digest(number)) is not None and number not in told]
    assert all(load(store, number) == content(number) for number in others)
    assert len(others) <= 40  # at most one of each that was killed
    assert add(store, 50_001)


def hold_the_lock(_: int, path: str, is_held: Any) -> None:
    store = Store(path, LIMIT)
    with store.space._locked(1) as locked:
        assert locked
        is_held.set()
        signal.pause()


def test_a_stopped_process_with_the_lock_stops_no_other(tmp_path: Path) -> None:
    store = Store(str(tmp_path), LIMIT)
    assert add(store, 0)
    is_held = FORK.Event()
    with processes(1, hold_the_lock, str(tmp_path), is_held) as (process,):
        assert is_held.wait(10)
        os.kill(process.pid, signal.SIGSTOP)
        other, before = Store(str(tmp_path), LIMIT), time.monotonic()
        assert not add(other, 1)
        for number in range(1000):
            add(other, number)
        assert load(other, 0) == content(0)
        assert load(store, 0) == content(0)
        assert add(store, 1)  # there is room in its segment
        assert not other.space.clear(0)
        assert time.monotonic() - before < 5
    assert add(Store(str(tmp_path), LIMIT), 2)


def test_a_forked_child_writes_to_its_own_segment(tmp_path: Path) -> None:
    store = Store(str(tmp_path), LIMIT)
    assert add(store, 0)

    def write(_: int) -> None:
        for number in range(1, 6):
            assert add(store, number)
        assert load(store, 0) == content(0)

    with processes(1, write) as (process,):
        process.join()
        assert process.exitcode == 0
    assert all(add(store, number) for number in range(6, 10))
    assert all(load(store, number) == content(number) for number in range(10))
    assert len(segments_of(tmp_path)) == 2


# -- disks and files --------------------------------------------------------------------------------------------------


def patch(path: Path, at: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        os.pwrite(file.fileno(), data, at)


def only_segment(path: Path) -> Path:
    (number,) = segments_of(path)
    return path / segment_name(number)


@pytest.mark.parametrize("other_boot", [False, True])
def test_bytes_are_compared_if_the_machine_was_restarted(tmp_path: Path, other_boot: bool) -> None:
    store = Store(str(tmp_path), LIMIT)
    add(store, 1)
    segment = only_segment(tmp_path)
    patch(segment, RECORD_HEAD, bytes([content(1)[0] ^ 1]))
    if other_boot:
        at = segment.read_bytes().index(struct.pack("<Q", this_boot()))
        patch(segment, at, bytes(8))
    if not other_boot:  # the kernel has what was written: this is what ``always_verify`` is for
        assert load(store, 1) != content(1)
        store = Store(str(tmp_path), LIMIT, always_verify=True)
    with pytest.raises(DamagedError):
        load(store, 1)
    assert store.find(digest(1)) is None
    assert add(store, 1)
    assert load(store, 1) == content(1)


def test_a_record_that_was_lost_is_stored_again(tmp_path: Path) -> None:
    store = Store(str(tmp_path), LIMIT)
    add(store, 1)
    segment = only_segment(tmp_path)
    patch(segment, 0, bytes(RECORD_HEAD))
    assert load(store, 1) is None
    assert add(store, 1)
    assert load(store, 1) == content(1)


def test_after_a_restart_the_directory_keeps_to_its_limit(tmp_path: Path) -> None:
    """The last state may not have reached the disk: the files that are there count."""
    store = Store(str(tmp_path), LIMIT)
    for number in range(200):
        add(store, number)
    state = store.space.state()
    assert state is not None
    patch(tmp_path / INDEX_NAME, STATE_AT, state._replace(next=state.next - 2, segments=1, boot=1).encoded())
    for number in range(state.next, state.next + 3):
        (tmp_path / segment_name(number)).write_bytes(bytes(store.geometry.segment_size))
    store = Store(str(tmp_path), LIMIT)
    assert size_of_directory(tmp_path) <= LIMIT
    found = store.space.state()
    assert found is not None
    assert (found.next, found.boot) == (state.next + 3, this_boot())
    for number in range(200, 400):
        age(tmp_path)
        add(store, number)
        assert size_of_directory(tmp_path) <= LIMIT
    assert load(store, 399) == content(399)


def test_a_damaged_state_is_computed_again(tmp_path: Path) -> None:
    add(Store(str(tmp_path), LIMIT), 1)
    patch(tmp_path / INDEX_NAME, STATE_AT, b"nonsense")
    store = Store(str(tmp_path), LIMIT)
    assert load(store, 1) == content(1)
    for number in range(2, 200):
        age(tmp_path)
        assert add(store, number)
        assert size_of_directory(tmp_path) <= LIMIT


@pytest.mark.parametrize("size", [0, 10, 5000])
def test_a_truncated_index_is_an_error_and_made_again(tmp_path: Path, size: int) -> None:
    store = Store(str(tmp_path), LIMIT)
    for number in range(200):
        add(store, number)
    os.truncate(tmp_path / INDEX_NAME, size)
    for number in range(200):
        try:
            assert load(store, number) in (None, content(number))
            add(store, number)
        except OSError:
            break
    else:
        pytest.fail("nobody noticed")
    store = Store(str(tmp_path), LIMIT)
    assert load(store, 199) is None
    for number in range(200):
        age(tmp_path)
        assert add(store, number)
        assert size_of_directory(tmp_path) <= LIMIT


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / INDEX_NAME).write_bytes(b"a diary" * 1000)
    with pytest.raises(UnusableError, match="no index"):
        Store(str(tmp_path), LIMIT)
    assert (tmp_path / INDEX_NAME).read_bytes() == b"a diary" * 1000


def test_an_index_of_a_later_release_is_left_alone(tmp_path: Path) -> None:
    add(Store(str(tmp_path), LIMIT), 1)
    patch(tmp_path / INDEX_NAME, 8, struct.pack("<I", 2))
    before = (tmp_path / INDEX_NAME).read_bytes()
    with pytest.raises(UnusableError, match=r"later release: it has version 2"):
        Store(str(tmp_path), LIMIT)
    assert (tmp_path / INDEX_NAME).read_bytes() == before


def test_the_smaller_of_two_limits_holds(tmp_path: Path) -> None:
    large = Store(str(tmp_path), 2 * LIMIT)
    for number in range(300):
        add(large, number)
    assert size_of_directory(tmp_path) > LIMIT
    small = Store(str(tmp_path), LIMIT)
    for number in range(300, 500):
        age(tmp_path)
        add([large, small][number % 2], number)
        assert size_of_directory(tmp_path) <= LIMIT
    assert load(large, 499) == load(small, 499) == content(499)
    assert Store(str(tmp_path), 2 * LIMIT).space.state() == small.space.state()
    with pytest.raises(UnusableError, match="its index alone has"):
        Store(str(tmp_path), large.geometry.index_size)


def test_a_directory_that_was_replaced_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    store = Store(str(path), LIMIT)
    add(store, 1)
    path.rename(tmp_path / "old")
    Store(str(path), LIMIT)
    (tmp_path / "old" / INDEX_NAME).unlink()
    (tmp_path / "old" / INDEX_NAME).write_bytes(Geometry.of_limit(LIMIT).encoded())
    store.forget_parent()  # it needs another segment
    with pytest.raises(OSError, match="emptied"):
        add(store, 2)
    assert segments_of(path) == []


def test_clearing_leaves_nothing_and_no_number_is_used_again(tmp_path: Path) -> None:
    store, other = Store(str(tmp_path), LIMIT), Store(str(tmp_path), LIMIT)
    for number in range(20):
        add([store, other][number % 2], number)
    before = segments_of(tmp_path)
    assert store.space.clear(1)
    assert segments_of(tmp_path) == []
    assert all(load(other, number) is None for number in range(20))
    assert add(store, 1)
    assert add(other, 2)
    assert load(other, 1) == content(1)
    assert min(segments_of(tmp_path)) > max(before)


# -- slow disks -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.floats(0.02, 2.0))
def test_waiting_for_a_slow_disk_takes_a_tenth_of_the_time(each: float) -> None:
    pace, now, waited = Pace(), 1000.0, 0.0
    while now < 1200:
        if pace.allows(now):
            pace.note(each, 1000)
            waited += each
            now += each
        now += 0.1
    assert 0.08 * 200 < waited < 0.11 * 200 + 2 * each + 1


def test_a_fast_disk_is_not_slowed_down() -> None:
    pace, now = Pace(), 1000.0
    for _ in range(100_000):
        assert pace.allows(now)
        pace.note(0.0005, 100_000)
        now += 0.0005
