"""Loading: one request for the header, then the wanted bytes, received directly into the tensors' memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

import torch

from s3torchconnector._config import KIB, MIB
from s3torchconnector._errors import S3FormatError
from s3torchconnector._safetensors._header import LENGTH_BYTES, Entry, header_bytes, parse
from s3torchconnector._safetensors._selection import Index, Selection, as_index
from s3torchconnector._safetensors._types import TORCH_TYPES
from s3torchconnector._transfer import PiecesReader, Runtime
from s3torchconnector._uri import display_uri

HEAD_BYTES = 512 * KIB  # has the header of nearly every model, and all of a small file
MAX_GAP = 1 * MIB  # what a connection of 40 MB/s receives in the 25 ms that another request would wait
WAVE_BYTES = 256 * MIB  # of host memory, for tensors that go to another device

Names = Iterable[str] | Mapping[str, Index | None]


def load(
    runtime: Runtime,
    bucket: str,
    key: str,
    names: Names | None,
    device: torch.device | str | int,
    version_id: str | None = None,
) -> dict[str, torch.Tensor]:
    """Load tensors of a file, see ``S3Checkpoint.load_safetensors``."""
    reader = PiecesReader(runtime, bucket, key, max_gap=MAX_GAP, version_id=version_id)
    try:
        entries, data_start = _directory(reader)
        wanted = _wanted(entries, names, display_uri(bucket, key))
        selections = [
            Selection(name, TORCH_TYPES[entry.dtype], entry.shape, data_start + entry.start, index)
            for name, (entry, index) in wanted.items()
        ]
    except S3FormatError as error:
        message = f"{display_uri(bucket, key)} is not a valid safetensors file: {error}"
        raise S3FormatError(message, operation="GetObject", bucket=bucket, key=key) from error
    reader.prepare_verification(whole=data_start + sum(selection.bytes for selection in selections) == reader.size)
    target = torch.device(device)
    loaded: dict[str, torch.Tensor] = {}
    with reader.progress as progress:
        progress.total = data_start + sum(selection.bytes for selection in selections)
        for wave in _waves(selections, None if target.type == "cpu" else WAVE_BYTES):
            for selection, tensor in _read(reader, wave):
                loaded[selection.name] = tensor.to(target)
    return loaded


def _directory(reader: PiecesReader) -> tuple[list[Entry], int]:
    """The file's tensors, and the position of their first byte."""
    head = reader.read_head(HEAD_BYTES)
    data_start = LENGTH_BYTES + header_bytes(head, reader.size)
    header = bytes(reader.read_head(data_start)[LENGTH_BYTES:data_start])
    return parse(header, reader.size - data_start), data_start


def _wanted(entries: Sequence[Entry], names: Names | None, uri: str) -> dict[str, tuple[Entry, tuple[slice, ...]]]:
    by_name = {entry.name: entry for entry in entries}
    asked: Mapping[str, Index | None]
    if isinstance(names, str):
        raise TypeError(
            f"names must be an iterable of names, or a mapping of names to slices, not a string: write [{names!r}]"
        )
    asked = names if isinstance(names, Mapping) else dict.fromkeys(by_name if names is None else names)
    unknown = [name for name in asked if name not in by_name]
    if unknown:
        raise KeyError(f"{uri} has no tensor {unknown[0]!r}; it has {len(by_name)}, such as {list(by_name)[:5]}")
    for name in asked:
        if by_name[name].dtype not in TORCH_TYPES:
            raise S3FormatError(
                f"its tensor {name[:80]!r} has the type {by_name[name].dtype}, which PyTorch {torch.__version__} does "
                "not have: name the other tensors to load those"
            )
    return {name: (by_name[name], as_index(name, by_name[name].shape, index)) for name, index in asked.items()}


def _waves(selections: Sequence[Selection], most: int | None) -> Iterator[list[Selection]]:
    """The selections in groups of about ``most`` bytes, or in one group for None."""
    total = 0
    numbered = []
    for selection in selections:
        numbered.append((0 if most is None else total // most, selection))
        total += selection.bytes
    for _, group in groupby(numbered, key=lambda pair: pair[0]):
        yield [selection for _, selection in group]


def _read(reader: PiecesReader, selections: Sequence[Selection]) -> list[tuple[Selection, torch.Tensor]]:
    tensors = [(selection, selection.allocate()) for selection in selections]
    reader.read(piece for selection, tensor in tensors for piece in selection.direct(tensor))
    for selection, tensor in tensors:
        for pieces, finish in selection.staged(tensor):
            reader.read(pieces)
            finish()
    return tensors
