"""A small writer of MDS shards, after the published format."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

Columns = Sequence[tuple[str, str, int | None]]
COLUMNS: Columns = [("image", "jpeg", None), ("label", "int", 8), ("text", "str", None), ("score", "float32", 4)]


def encoded(columns: Columns, values: Sequence[bytes]) -> bytes:
    """A sample: sizes of the values whose size varies, then all values."""
    sizes = [len(value) for (_, _, size), value in zip(columns, values, strict=True) if size is None]
    return struct.pack(f"<{len(sizes)}I", *sizes) + b"".join(values)


def shard_of(samples: Sequence[bytes], description: bytes = b'{"description": "of the columns"}') -> bytes:
    """A shard: count, offsets, what describes the columns, samples."""
    ends = [4 * (len(samples) + 2) + len(description)]
    for sample in samples:
        ends.append(ends[-1] + len(sample))
    return struct.pack(f"<{len(ends) + 1}I", len(samples), *ends) + description + b"".join(samples)


def described(name: str, shard: bytes, samples: int, columns: Columns = COLUMNS, **changes: Any) -> dict[str, Any]:
    """What an index says of a shard."""
    names, encodings, sizes = zip(*columns, strict=True)
    return {
        "column_names": names, "column_encodings": encodings, "column_sizes": sizes, "compression": None,
        "format": "mds", "hashes": [], "raw_data": {"basename": name, "bytes": len(shard), "hashes": {}},
        "samples": samples, "size_limit": 1 << 26, "version": 2, "zip_data": None, **changes,
    }  # fmt: skip


def index_of(*shards: dict[str, Any]) -> bytes:
    return json.dumps({"shards": shards, "version": 2}).encode()
