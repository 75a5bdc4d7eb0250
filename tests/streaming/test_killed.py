"""Workers, ranks and whole jobs that end without notice: others raise, and the next start goes on at once."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch.distributed

from s3torchconnector import S3DataLoader, S3Manifest, S3StreamingDataset
from s3torchconnector.testing import S3Server
from tests.reading.support import wait_until
from tests.servers.proxy import RecordingProxy
from tests.streaming.support import Options, number, numbered, options

COUNT = 97
ENOUGH = 20  # samples, after which a job is killed
_FORK: Any = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def manifest(s3_server: S3Server) -> S3Manifest:
    s3_server.make_bucket("killed")
    return S3Manifest.from_prefix(numbered(s3_server, "killed", COUNT), **options(s3_server))


def dataset_of(manifest: S3Manifest, **changes: Any) -> S3StreamingDataset:
    return S3StreamingDataset(manifest, **{"transform": number, "batch_size": 4, **changes})


def flat(batches: Any) -> list[int]:
    return [sample for batch in batches for sample in batch]


@pytest.mark.parametrize("persistent", [False, True])
def test_a_killed_worker_is_an_error_and_the_next_start_works(manifest: S3Manifest, persistent: bool) -> None:
    shared_memory, before = set(os.listdir("/dev/shm")), set(psutil.Process().children())
    loader = S3DataLoader(dataset_of(manifest), num_workers=2, persistent_workers=persistent, collate_fn=list)
    batches = iter(loader)
    seen = list(next(batches))
    state = loader.state_dict()
    victim = next(iter(set(psutil.Process().children()) - before))
    os.kill(victim.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"exited unexpectedly|is killed by signal"):
        list(batches)
    del batches
    other = S3DataLoader(dataset_of(manifest), num_workers=2, collate_fn=list)
    other.load_state_dict(state)
    assert sorted(seen + flat(other)) == list(range(COUNT))
    del loader, other
    wait_until(lambda: set(os.listdir("/dev/shm")) <= shared_memory)  # others have some, too, for a moment


def train(dataset: S3StreamingDataset, folder: Path, workers: int) -> None:
    """Store after each batch what was seen and the state, in one file, as a job does with its checkpoints.

    Slowly once there is enough of that, so that the job is killed and does not end, however busy the machine is.
    """
    saved = json.loads((folder / "saved").read_text())
    enough = len(saved["seen"]) + ENOUGH
    loader = S3DataLoader(dataset, num_workers=workers, collate_fn=list)
    if saved["state"] is not None:
        loader.load_state_dict(saved["state"])
    for batch in loader:
        saved = {"seen": [*saved["seen"], *batch], "state": loader.state_dict()}
        (folder / "new").write_text(json.dumps(saved))
        os.replace(folder / "new", folder / "saved")
        if len(saved["seen"]) >= enough:
            threading.Event().wait(0.2)


def test_a_job_that_is_killed_again_and_again_sees_each_sample_once(manifest: S3Manifest, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    saved.write_text(json.dumps({"seen": [], "state": None}))
    topologies = itertools.cycle([(4, 0), (3, 2), (7, 1)])
    kills, ended = 0, False
    while not ended:
        batch_size, workers = next(topologies)
        before = len(json.loads(saved.read_text())["seen"])
        job = _FORK.Process(target=train, args=(dataset_of(manifest, batch_size=batch_size), tmp_path, workers))
        job.start()
        while job.is_alive() and len(json.loads(saved.read_text())["seen"]) < before + ENOUGH:
            job.join(0.002)
        kills += job.is_alive()
        job.kill()
        job.join()
        ended = json.loads(saved.read_text())["state"]["position"] == COUNT
    assert kills >= 3
    assert json.loads(saved.read_text())["seen"] == list(dataset_of(manifest))


def run_rank(rank: int, size: int, folder: Path, where: Options) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    manifest = S3Manifest.shared("s3://killed/data/", at=f"s3://killed/manifests/{folder.name}", **where)
    dataset = dataset_of(manifest, even_batches=False)
    batches = list(S3DataLoader(dataset, num_workers=2, collate_fn=list))
    missing = None
    try:
        S3Manifest.shared("s3://no-such-bucket/", at="s3://no-such-bucket/m", **where)
    except FileNotFoundError as error:
        missing = str(error)
    torch.distributed.barrier()
    (folder / f"rank {rank}").write_text(json.dumps([manifest.fingerprint, batches, missing]))
    torch.distributed.destroy_process_group()


def test_ranks_share_a_manifest_and_an_epoch(
    manifest: S3Manifest, s3_server: S3Server, proxy: RecordingProxy, tmp_path: Path
) -> None:
    where = options(s3_server, proxy.endpoint)
    ranks = [_FORK.Process(target=run_rank, args=(rank, 3, tmp_path, where)) for rank in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    found = [json.loads((tmp_path / f"rank {rank}").read_text()) for rank in range(3)]
    assert {fingerprint for fingerprint, _, _ in found} == {manifest.fingerprint}
    steps = itertools.zip_longest(*(batches for _, batches, _ in found), fillvalue=[])
    assert [sample for step in steps for sample in flat(step)] == list(dataset_of(manifest))
    assert all("no-such-bucket" in missing for _, _, missing in found)
    listings = [each for each in proxy.of("GET") if "list-type" in each.query and each.path.startswith("/killed")]
    assert len(listings) == 1
