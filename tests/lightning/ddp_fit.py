"""Two processes fit together, save, and resume: ``python -m tests.lightning.ddp_fit <uri> <endpoint> <strategy>``."""

from __future__ import annotations

import os
import sys

from lightning.pytorch.callbacks import ModelCheckpoint

from tests.lightning.support import Model, trainer


def main(uri: str, endpoint: str, strategy: str) -> None:
    ddp = {"strategy": strategy, "devices": 2, "use_distributed_sampler": False}
    saving = ModelCheckpoint(f"{uri}/checkpoints", save_last=True, save_top_k=2, monitor="step", mode="max")
    trainer(uri, endpoint, max_epochs=2, callbacks=[saving], **ddp).fit(Model())
    model = Model()
    resumed = trainer(uri, endpoint, max_epochs=3, **ddp)
    resumed.fit(model, ckpt_path=f"{uri}/checkpoints/last.ckpt")
    said = f"rank {resumed.global_rank} of {resumed.world_size}: {model.weight.item():g}\n"
    os.write(1, said.encode())  # at once, so that two ranks' lines do not mix


if __name__ == "__main__":
    main(*sys.argv[1:])
