"""Saves that are interrupted, each in a process that really ends.

    python -m tests.writing.saver

reads one order a line (``how endpoint bucket``), forks a child for it, which ends as the order says through the
interpreter's own exit, and reports ``<pid>``, then whatever the child says, then ``ended <status>``. The imports are
paid for once. Each child has two writers open, of 1 KiB and of 17 MiB.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable

from s3torchconnector import S3Exception, S3Writer
from s3torchconnector._config import MIB
from tests.writing.support import SIZES, client_of, noise, writer_of


def say(word: str) -> None:
    os.write(1, f"{word}\n".encode())  # unbuffered, so that no fork says it twice


def open_writers(endpoint: str, bucket: str) -> list[S3Writer]:
    """Both writers with all their bytes written, and neither closed; the multipart upload has begun."""
    client = client_of(endpoint)
    writers = [writer_of(client, bucket, key) for key in SIZES]
    for writer, (key, size) in zip(writers, SIZES.items(), strict=True):
        writer.write(noise(size, seed=len(key)))
    begun = writers[-1].stream._upload._upload_id
    assert begun is not None
    begun.result()
    return writers


def sys_exit(endpoint: str, bucket: str) -> None:
    writers = open_writers(endpoint, bucket)
    sys.exit(3 + 0 * len(writers))


def uncaught_exception(endpoint: str, bucket: str) -> None:
    writers = open_writers(endpoint, bucket)
    raise RuntimeError(f"as the test says, with {len(writers)} writers open")


def globals_at_exit(endpoint: str, bucket: str) -> None:
    globals()["kept"] = open_writers(endpoint, bucket)


def wait_for_a_signal(endpoint: str, bucket: str) -> None:
    writers = open_writers(endpoint, bucket)
    say("written")
    while writers:
        signal.pause()


def wait_for_a_signal_with_a_handler(endpoint: str, bucket: str) -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
    wait_for_a_signal(endpoint, bucket)


def open_another_after_a_signal(endpoint: str, bucket: str) -> None:
    writers = open_writers(endpoint, bucket)
    arrived, arrives = os.pipe()
    os.set_blocking(arrives, False)
    signal.set_wakeup_fd(arrives)
    say("written")
    os.read(arrived, 1)  # unlike ``pause``, also if the signal came before
    try:
        writers += open_writers(endpoint, bucket)
        say("opened")
    except S3Exception:
        say("refused")
    while writers:
        signal.pause()


def write_until_a_signal(endpoint: str, bucket: str) -> None:
    writers = open_writers(endpoint, bucket)
    say("written")
    while True:
        writers[1].write(bytes(MIB))


def forked_child_drops_the_writers(endpoint: str, bucket: str) -> None:
    writers = open_writers(endpoint, bucket)
    pid = os.fork()
    if pid == 0:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            writers.clear()
            gc.collect()
        sys.exit(5 if caught else 0)  # the writers are the parent's, nothing to warn the child of
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    for writer in writers:
        writer.close()
    sys.exit(status)


def multiprocessing_child_leaves_writers_open(endpoint: str, bucket: str) -> None:
    child = multiprocessing.get_context("fork").Process(target=globals_at_exit, args=(endpoint, bucket))
    child.start()
    child.join()
    sys.exit(child.exitcode)


WAYS: dict[str, Callable[[str, str], None]] = {
    way.__name__: way
    for way in (
        sys_exit,
        uncaught_exception,
        globals_at_exit,
        wait_for_a_signal,
        wait_for_a_signal_with_a_handler,
        open_another_after_a_signal,
        write_until_a_signal,
        forked_child_drops_the_writers,
        multiprocessing_child_leaves_writers_open,
    )
}


def main() -> None:
    for line in sys.stdin:
        how, endpoint, bucket = line.split()
        pid = os.fork()
        if pid == 0:
            WAYS[how](endpoint, bucket)
            return
        say(str(pid))
        say(f"ended {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in its background
    main()
