"""Read some tensors, and some rows of one, out of a safetensors file in S3 without reading the rest.

Run it with ``python examples/safetensors_subset.py``. It starts a real S3 server on this machine; on AWS, leave
that out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from s3torchconnector import S3Checkpoint
from s3torchconnector.testing import S3Server

LAYERS, WIDTH, WORDS = 12, 512, 16_384
URI = "s3://models/tiny-transformer.safetensors"


def model_state() -> dict[str, torch.Tensor]:
    """The weights of a small transformer in bfloat16, about 100 MB."""
    state = {"embed.weight": torch.randn(WORDS, WIDTH, dtype=torch.bfloat16)}
    for layer in range(LAYERS):
        state[f"layers.{layer}.attention.weight"] = torch.randn(4 * WIDTH, WIDTH, dtype=torch.bfloat16)
        state[f"layers.{layer}.mlp.weight"] = torch.randn(8 * WIDTH, WIDTH, dtype=torch.bfloat16)
        state[f"layers.{layer}.norm.bias"] = torch.zeros(WIDTH, dtype=torch.bfloat16)
    return state


def show(what: str, load: Callable[[], Mapping[str, torch.Tensor]]) -> Mapping[str, torch.Tensor]:
    begin = time.perf_counter()
    tensors = load()
    took = time.perf_counter() - begin
    size = sum(tensor.nbytes for tensor in tensors.values())
    print(f"{what:<32} {len(tensors):>3} tensors {size / 1e6:>7.1f} MB in {1000 * took:>5.0f} ms")
    return tensors


def main() -> None:
    torch.manual_seed(0)
    with S3Server() as server, server.exported():
        server.make_bucket("models")
        checkpoint = S3Checkpoint(server.region)
        state = model_state()
        checkpoint.save_safetensors(state, URI, metadata={"format": "pt"})

        loaded = show("everything", lambda: checkpoint.load_safetensors(URI))
        assert all(torch.equal(loaded[name], state[name]) for name in state)

        layer = [name for name in state if name.startswith("layers.3.")]
        show("one layer", lambda: checkpoint.load_safetensors(URI, names=layer))

        # A rank of a tensor-parallel job reads only its own rows.
        rank, ranks = 1, 4
        rows = slice(rank * WORDS // ranks, (rank + 1) * WORDS // ranks)
        part = show(
            "a quarter of the embedding", lambda: checkpoint.load_safetensors(URI, names={"embed.weight": rows})
        )
        assert torch.equal(part["embed.weight"], state["embed.weight"][rows])


if __name__ == "__main__":
    main()
