"""The objects that are read: one checkpoint, many small objects; and what is needed to make them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.job import TENSORS

if TYPE_CHECKING:
    import torch

SMALL_SIZE = 110 << 10
BUCKET = "bench"
_FILES = 100  # distinct small files; nginx.conf maps the keys onto them


def tensors(size: int) -> dict[str, torch.Tensor]:
    """A state of `TENSORS` tensors of together `size` bytes."""
    import torch

    length = size // TENSORS // 4
    return {f"layer{number}.weight": torch.full((length,), float(number)) for number in range(TENSORS)}


@contextmanager
def local(size: int) -> Iterator[Path]:
    """A folder in memory that holds bucket `BUCKET`; removed when the block ends."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="bench-objects-", dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        folder.chmod(0o755)
        small = folder / BUCKET / "small"
        small.mkdir(parents=True)
        for number in range(_FILES):
            (small / f"{number:02d}").write_bytes(bytes([mark(number)]) * SMALL_SIZE)
        write_checkpoint(folder / BUCKET / "checkpoint.pt", size)
        yield folder


def mark(number: int) -> int:
    """What each byte of the small object of this number is."""
    return number % _FILES


def write_checkpoint(path: Path, size: int) -> None:
    """`torch.save` in a separate process: the benchmark itself stays small."""
    code = f"import torch; from benchmarks.objects import tensors; torch.save(tensors({size}), {str(path)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root())


def write_safetensors(path: Path, size: int) -> None:
    """The same tensors as a safetensors file, written by that library."""
    code = (
        "import safetensors.torch; from benchmarks.objects import tensors; "
        f"safetensors.torch.save_file(tensors({size}), {str(path)!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root())


def write_distributed(folder: Path, size: int, ranks: int) -> None:
    """The distributed checkpoint of so many ranks, in the bucket below `folder`."""
    target = folder / BUCKET / f"dcp-{ranks}"
    # A file and not `-c`: the ranks are processes that import what their parent was started with.
    command = [sys.executable, "-m", "benchmarks.store", str(target), str(size), str(ranks)]
    subprocess.run(command, check=True, cwd=root())


def root() -> Path:
    """The folder that `benchmarks` is imported from."""
    return Path(__file__).resolve().parent.parent
