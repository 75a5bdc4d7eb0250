"""Checkpoints in other formats and by other programs: safetensors files, Lightning's plugin, the checkpoint manager.

1.5.0 knows no safetensors: what is measured of it is what its users write, the whole file through `safetensors.torch`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from benchmarks.connector import options
from benchmarks.job import Job
from benchmarks.meter import Meter
from benchmarks.objects import tensors

if TYPE_CHECKING:
    import torch

    from s3torchconnector.lightning import S3LightningCheckpoint


def workloads(by_hand: bool) -> dict[str, Callable[[Job, Meter], int]]:
    """The functions by name; `by_hand` is for a connector that knows no safetensors."""
    return {
        "safetensors-load": _load_by_hand if by_hand else _load,
        "safetensors-save": _save_by_hand if by_hand else _save,
        "lightning-load": _load_lightning,
        "lightning-save": _save_lightning,
        "manager-save": _save_managed,
    }


def _load(job: Job, meter: Meter) -> int:
    """`load_safetensors` of a whole file. Returns the bytes of its tensors."""
    checkpoint = _warm_checkpoint(job)
    with meter:
        state = checkpoint.load_safetensors(job.uri(job.safetensors))
    return _checked(state)


def _load_by_hand(job: Job, meter: Meter) -> int:
    import safetensors.torch

    checkpoint = _warm_checkpoint(job)
    with meter:
        state = safetensors.torch.load(checkpoint.reader(job.uri(job.safetensors)).read())
    return _checked(state)


def _save(job: Job, meter: Meter) -> int:
    """`save_safetensors`. Returns the bytes of the tensors."""
    checkpoint, state = _warm_checkpoint(job, write=True), tensors(job.size)
    with meter:
        checkpoint.save_safetensors(state, job.uri(job.saved))
    return _bytes(state)


def _save_by_hand(job: Job, meter: Meter) -> int:
    import safetensors.torch

    checkpoint, state = _warm_checkpoint(job, write=True), tensors(job.size)
    with meter, checkpoint.writer(job.uri(job.saved)) as writer:
        writer.write(safetensors.torch.save(state))
    return _bytes(state)


def _load_lightning(job: Job, meter: Meter) -> int:
    """`load_checkpoint` of the file of `torch-load`. Returns its bytes."""
    plugin = _plugin(job)
    with meter:
        state = plugin.load_checkpoint(job.uri(job.big))
    _checked(state)
    return job.size


def _save_lightning(job: Job, meter: Meter) -> int:
    """`save_checkpoint` of the state of `torch-save`. Returns its bytes."""
    plugin, state = _plugin(job), tensors(job.size)
    plugin.save_checkpoint({"warm": True}, job.uri(job.saved))
    with meter:
        plugin.save_checkpoint(state, job.uri(job.saved))
    return job.size


def _save_managed(job: Job, meter: Meter) -> int:
    """`S3CheckpointManager.save` of the state of `torch-save`, with its commit. Returns its bytes."""
    from s3torchconnector import S3CheckpointManager

    manager, state = S3CheckpointManager(job.uri(f"{job.prefix}run-{os.getpid()}"), **options(job)), tensors(job.size)
    manager.save(1, {"warm": True})
    with meter:
        manager.save(2, state)
    return job.size


def _warm_checkpoint(job: Job, write: bool = False) -> Any:
    """An `S3Checkpoint` that has moved something small."""
    from s3torchconnector import S3Checkpoint

    checkpoint = S3Checkpoint(**options(job))
    if write:
        with checkpoint.writer(job.uri(job.saved)) as writer:
            writer.write(b"warm")
    else:
        checkpoint.reader(job.uri(job.small(0))).read()
    return checkpoint


def _plugin(job: Job) -> S3LightningCheckpoint:
    from benchmarks.distributed import config
    from s3torchconnector.lightning import S3LightningCheckpoint

    return S3LightningCheckpoint(job.region, s3client_config=config(job))


def _bytes(state: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in state.values())


def _checked(state: dict[str, Any]) -> int:
    for name, tensor in state.items():
        if tensor[-1].item() != float(name.removeprefix("layer").split(".")[0]):
            raise AssertionError(f"{name} ends with {tensor[-1].item()}")
    return _bytes(state)
