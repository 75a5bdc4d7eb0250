"""The index that Megatron-Energon writes beside each archive: where samples begin. Pure.

``train-000.tar.idx`` is a u64 for each sample of ``train-000.tar``, in the writer's byte order (little-endian on all
machines that train): where the header of its first file begins; and one more, where the last sample ends
(``TarIndexWriter`` in https://github.com/NVIDIA/Megatron-Energon, ``flavors/webdataset/itar.py``). It has neither names
nor checksums.
"""

from __future__ import annotations

import struct
from itertools import pairwise

from s3torchconnector._errors import S3FormatError

INDEX_SUFFIX = ".tar.idx"
_BLOCK = 512


def offsets_of(data: bytes, archive_size: int) -> list[int]:
    """The numbers of an index.

    Raises:
        S3FormatError: it is not an index, or the index of another archive.
    """
    if not data or len(data) % 8:
        raise S3FormatError(f"its index ({INDEX_SUFFIX}) has {len(data)} bytes, which is not a multiple of 8")
    offsets = list(struct.unpack(f"<{len(data) // 8}Q", data))
    ascending = all(first < second for first, second in pairwise(offsets))
    if not ascending or any(offset % _BLOCK for offset in offsets) or offsets[-1] > archive_size:
        raise S3FormatError(
            f"its index ({INDEX_SUFFIX}) does not fit it: the numbers are not ascending multiples of {_BLOCK} up to "
            f"{archive_size}. Write the index again with `energon prepare`, or use use_index=False"
        )
    return offsets
