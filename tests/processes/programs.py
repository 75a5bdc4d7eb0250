"""Programs that are interrupted, or end, in the middle of transfers: ``python -m tests.processes.programs NAME ...``.

Contract: a program says ``under way`` before the transfer that the test's proxy stalls, and waits for a line on its
standard input where it must know that the test has gone on. It ends with status 0 when all was as it should be.

Only programs that need torch import it, which takes two seconds.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Event
from typing import Any

from s3torchconnector import S3Writer
from s3torchconnector._config import MIB
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer.writing import _abandoned_uploads
from tests.reading.support import client_of, content, open_object, put

SIZE = 12 * MIB + 5
SMALL = 1000


def say(word: str) -> None:
    print(word, flush=True)


def hear() -> None:
    assert sys.stdin.readline(), "the test has ended"


def interrupted(client: S3Client, transfer: Callable[[], object]) -> None:
    say("under way")
    try:
        transfer()
    except KeyboardInterrupt:
        say("interrupted")
    else:
        raise AssertionError("it was not interrupted")
    hear()


def a_read_is_interrupted(client: S3Client, bucket: str) -> None:
    """The reader, whose position did not move, reads on."""
    budget = client._runtime().budget
    with open_object(client, bucket) as reader:
        interrupted(client, reader.read)
        assert reader.tell() == 0
        assert reader.read() == content(0, SIZE)
    client.close()
    assert budget.taken == 0, budget.taken


def a_prefetched_read_is_interrupted(client: S3Client, bucket: str) -> None:
    budget = client._runtime().budget
    with open_object(client, bucket, "small") as reader:
        reader._start_early(SMALL)
        interrupted(client, reader.read)
        assert reader.read() == content(0, SMALL)
    client.close()
    assert budget.taken == 0, budget.taken


def a_save_is_interrupted(client: S3Client, bucket: str) -> None:
    """Nothing is stored, and the same client saves again."""
    budget = client._runtime().budget
    stream = client.put_object(bucket, "saved")
    stream.write(content(0, SIZE))
    interrupted(client, stream.close)
    assert "aborted" in repr(stream.stream)
    put(client, bucket, "saved again", content(0, SIZE))
    client.close()
    assert budget.taken == 0, budget.taken


def it_ends_during_reads(client: S3Client, bucket: str) -> None:
    """Small objects, multiplexed and read ahead, and one that a thread waits for."""
    small, large = open_object(client, bucket, "small"), open_object(client, bucket)
    small._start_early(SMALL)
    large._start_early()
    threading.Thread(target=open_object(client, bucket).read, daemon=True).start()
    say("under way")
    hear()


def it_ends_during_a_save(client: S3Client, bucket: str) -> None:
    global kept
    kept = client.put_object(bucket, "saved")
    kept.write(content(0, SIZE))
    say("under way")
    hear()


def it_ends_before_a_distributed_save_begins(client: S3Client, bucket: str) -> None:
    """Nothing but the call of ``async_save`` is before the end: no thread has been started for it yet."""
    import torch.distributed.checkpoint as dcp

    global kept
    kept = executor = ThreadPoolExecutor(1)
    idle = executor.submit(threading.current_thread).result()

    class Planner(dcp.DefaultSavePlanner):
        def create_local_plan(self) -> Any:
            idle.join()  # the idle threads of executors end when the interpreter begins to
            return super().create_local_plan()

    _save_in_background(client, bucket, planner=Planner())


def a_child_ends_during_a_distributed_save(client: S3Client, bucket: str, method: str) -> None:
    """A child of ``multiprocessing``, which waits for threads when it ends."""
    context: Any = multiprocessing.get_context(method)
    may_end = context.Event()
    child = context.Process(target=_save_and_end, args=(client, bucket, may_end))
    child.start()
    say("under way")
    hear()
    may_end.set()
    child.join()
    sys.exit(child.exitcode)


def _save_and_end(client: S3Client, bucket: str, may_end: Event) -> None:
    _save_in_background(client, bucket)
    may_end.wait()
    # Said when threads are waited for, which is after the child's finalisers before Python 3.13, and before them since.
    threading._register_atexit(say, "ending")  # type: ignore[attr-defined]


def _save_in_background(client: S3Client, bucket: str, **options: Any) -> None:
    import torch.distributed.checkpoint as dcp

    dcp.async_save(distributed(2.0), storage_writer=_storage_writer(client, bucket), **options)


def _storage_writer(client: S3Client, bucket: str) -> Any:
    from s3torchconnector.dcp import S3StorageWriter

    for text in ("torch.distributed is (disabled|unavailable)", "TypedStorage is deprecated"):  # 2.13's, and 2.4's two
        warnings.filterwarnings("ignore", text)
    path = f"s3://{bucket}/distributed"
    return S3StorageWriter("us-east-1", path, client.s3client_config, thread_count=2, endpoint=client.endpoint)


def distributed(number: float) -> dict[str, Any]:
    """A state of two files: one in several parts, and a small one."""
    import torch

    return {"large": torch.full((SIZE // 4,), number), "small": torch.full((3,), number)}


def a_distributed_save(client: S3Client, bucket: str) -> None:
    import torch.distributed.checkpoint as dcp

    say("under way")
    dcp.save(distributed(2.0), storage_writer=_storage_writer(client, bucket))


def an_asynchronous_distributed_save(client: S3Client, bucket: str) -> None:
    _save_in_background(client, bucket)
    say("under way")
    hear()


def a_save_of_a_manager_in_the_background(client: S3Client, bucket: str) -> None:
    manager = _manager(client, bucket)
    manager.save_async(1, distributed(2.0))
    say("under way")
    hear()


def four_uploads_are_open(client: S3Client, bucket: str, seconds: str) -> None:
    """All their parts are stored. One of them is in a ``with`` block, which Ctrl-C or the end leaves."""
    global kept
    _abandoned_uploads._SECONDS_AT_THE_END = float(seconds)
    kept = writers = [S3Writer(client.put_object(bucket, f"saved-{number}")) for number in range(4)]
    for writer in writers:
        writer.write(content(0, SIZE))
        for part in writer.stream._upload._parts:
            part.result()
    with writers[0]:
        say("under way")
        hear()
        sys.exit(3)


def an_upload_begins(client: S3Client, bucket: str, seconds: str) -> None:
    _abandoned_uploads._SECONDS_AT_THE_END = float(seconds)
    with S3Writer(client.put_object(bucket, "saved")) as writer:
        writer.write(content(0, SIZE))
        say("under way")
        hear()
        sys.exit(3)


def sigterm_is_handled_while_something_is_saved(client: S3Client, bucket: str) -> None:
    """And what the program had is back afterwards, when the main thread is there again."""
    import torch.distributed.checkpoint as dcp

    def is_handled() -> bool:
        return signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL

    writer, manager = _storage_writer(client, bucket), _manager(client, bucket)
    assert is_handled()
    for number in range(2):
        dcp.save(distributed(2.0), storage_writer=writer)
        assert not is_handled(), number
    saved = dcp.async_save(distributed(2.0), storage_writer=writer)
    assert is_handled()
    saved.result()
    future = manager.save_async(1, distributed(2.0))
    assert is_handled()
    future.result()
    manager.save(2, distributed(2.0))
    assert not is_handled()
    manager.close()


def its_own_sigterm_handler_calls_the_one_before(client: S3Client, bucket: str) -> None:
    """As Lightning's does, which then ends the training in order; with nothing open, and while something is."""
    writer = _storage_writer(client, bucket)
    before = signal.getsignal(signal.SIGTERM)
    assert callable(before)
    handled: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: (before(number, frame), handled.append(number)))  # type: ignore[func-returns-value]
    signal.raise_signal(signal.SIGTERM)
    with S3Writer(client.put_object(bucket, "saved")) as stream:
        signal.raise_signal(signal.SIGTERM)
        stream.write(content(0, SIZE))
    signal.signal(signal.SIGTERM, before)  # as it is at the end of a training
    with S3Writer(client.put_object(bucket, "saved")) as stream:
        stream.write(content(0, SIZE))
    del writer
    with S3Writer(client.put_object(bucket, "saved")) as stream:
        stream.write(content(0, SIZE))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert handled == [signal.SIGTERM] * 2


def _manager(client: S3Client, bucket: str) -> Any:
    from s3torchconnector import S3CheckpointManager

    uri = f"s3://{bucket}/managed"
    return S3CheckpointManager(uri, "us-east-1", endpoint=client.endpoint, s3client_config=client.s3client_config)


def it_does_everything(client: S3Client, bucket: str) -> None:
    """With nothing left open that would be warned of."""
    from torch.utils.data import DataLoader

    from s3torchconnector import S3IterableDataset, S3MapDataset

    put(client, bucket, "saved", content(0, SIZE))
    dropped = client.put_object(bucket, "given up")
    dropped.write(content(0, SIZE))
    dropped.abort()
    reader = open_object(client, bucket)
    assert reader.read(MIB) + reader.read(MIB) + reader.read() == content(0, SIZE)
    assert {info.key for page in client.list_objects(bucket) for info in page.object_info} >= {"key", "small", "saved"}
    options = {"region": "us-east-1", "endpoint": client.endpoint, "transform": _read}
    for dataset in (S3MapDataset, S3IterableDataset):
        samples: Any = dataset.from_prefix(f"s3://{bucket}/s/", **options)  # type: ignore[attr-defined]
        assert list(samples) == [content(0, SIZE), content(0, SMALL)]
        loader: DataLoader[bytes] = DataLoader(
            samples, batch_size=None, num_workers=2 if dataset is S3MapDataset else 1, multiprocessing_context="fork"
        )
        assert list(loader) == [content(0, SIZE), content(0, SMALL)]
    client.delete_object(bucket, "saved")
    open_object(client, bucket)._start_early()  # dropped, under way
    client.close()
    assert client.head_object(bucket, "key").size == SIZE  # again, and never closed


def _read(reader: object) -> bytes:
    return bytes(reader.read())  # type: ignore[attr-defined]


kept: object = None
PROGRAMS: dict[str, Callable[..., None]] = {
    program.__name__: program
    for program in (
        a_read_is_interrupted,
        a_prefetched_read_is_interrupted,
        a_save_is_interrupted,
        it_ends_during_reads,
        it_ends_during_a_save,
        it_ends_before_a_distributed_save_begins,
        a_child_ends_during_a_distributed_save,
        a_distributed_save,
        an_asynchronous_distributed_save,
        a_save_of_a_manager_in_the_background,
        its_own_sigterm_handler_calls_the_one_before,
        sigterm_is_handled_while_something_is_saved,
        four_uploads_are_open,
        an_upload_begins,
        it_does_everything,
    )
}

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored if tests run in the background of a shell
    _, name, endpoint, bucket, *arguments = sys.argv
    PROGRAMS[name](client_of(endpoint), bucket, *arguments)
