"""Archives of ``torch.save``: zip files with a pickle, and a record for each storage.

Fetched are the directory, which is at the end, and the pickle. The records are not looked at, only their sizes.
https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

from __future__ import annotations

import zipfile
from collections import deque
from collections.abc import Iterable
from itertools import islice
from math import isfinite
from typing import Any, cast

from s3torchconnector._cli._inspect._description import Description
from s3torchconnector._cli._inspect._pickles import Made, described
from s3torchconnector._cli._inspect._rebuilt import storage_of, tensors_in
from s3torchconnector._cli._inspect._remote_file import RemoteFile
from s3torchconnector._config import KIB, MIB
from s3torchconnector._errors import S3Exception, S3FormatError

MAGIC = b"PK\x03\x04"
_END = 128 * KIB  # has the end of the directory, whatever comment follows it
_PICKLE = "data.pkl"
_LARGEST_PICKLE = 256 * MIB  # a million tensors' names and shapes; as Python's objects, it takes 60 times the memory
_LARGEST_COMPRESSED = 16 * MIB  # PyTorch compresses none: a few bytes may say that they are gigabytes
_MOST_VALUES = 20
_LONGEST = 80


def describe_archive(file: RemoteFile) -> Description:
    """Describe an archive.

    Raises:
        S3FormatError: it is a zip file of another kind, or damaged.
        S3Exception: an error occurred accessing S3.
    """
    file.fetch(max(0, file.size - _END), file.size)  # zipfile takes errors of the network for those of the format
    try:
        with zipfile.ZipFile(file) as archive:
            root = _root(archive)
            pickled = described(_pickle(archive, root + _PICKLE), storage_of)
    except S3Exception:
        raise
    except Exception as error:  # zipfile and zlib raise a dozen kinds for damaged files
        raise S3FormatError(
            f"it begins as a zip file, and cannot be read as one: {error}. It is truncated, or damaged"
        ) from error
    records = {
        info.filename.removeprefix(f"{root}data/"): info.file_size
        for info in archive.infolist()
        if info.filename.startswith(f"{root}data/")
    }
    is_script = f"{root}constants.pkl" in archive.NameToInfo
    title = "TorchScript archive (torch.jit.save)" if is_script else "archive of torch.save"
    found = Description(file.uri, "torch", title)
    found.tensors = tensors_in(pickled, records, found.problems)
    beyond = sum(records.values()) - found.total().bytes  # a view is stored with all of the tensor that it is of
    found.facts = {"size": file.size, "bytes_beyond_views": max(0, beyond), "values": _values(pickled)}
    return found


def _root(archive: zipfile.ZipFile) -> str:
    """The folder in the archive that everything is in, with a slash; PyTorch names it after the file."""
    found = [name for name in archive.namelist() if name == _PICKLE or name.endswith(f"/{_PICKLE}")]
    roots = [name.removesuffix(_PICKLE) for name in found if name.count("/") <= 1]
    if len(roots) != 1:
        names = ", ".join(archive.namelist()[:5])
        raise S3FormatError(f"it is a zip file, but not of torch.save: it has no {_PICKLE}, but {names:.200}")
    return roots[0]


def _pickle(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.CRC == 0:  # PyTorch wrote none
        info.CRC = cast(Any, None)  # so that zipfile compares none
    with archive.open(info) as stream:
        largest = _LARGEST_PICKLE if info.compress_type == zipfile.ZIP_STORED else _LARGEST_COMPRESSED
        data = stream.read(largest + 1)
    if len(data) > largest:
        raise S3FormatError(f"its {_PICKLE} has more than {largest} bytes, too many for names and shapes")
    return data


def _values(pickled: Any) -> dict[str, Any]:
    """Some of the numbers and texts, such as the epoch; those nearest to the top first."""
    found: dict[str, Any] = {}
    left, seen = deque([("", pickled)]), set[int]()  # what contains itself is looked into once
    while left and len(found) < _MOST_VALUES:
        above, value = left.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        for key, each in _items(value):
            name = f"{above}.{key}" if above else str(key)
            if isinstance(each, dict | list | tuple | Made):
                left.append((name, each))
            elif isinstance(each, str | int) or (isinstance(each, float) and isfinite(each)):
                found[name] = each[:_LONGEST] if isinstance(each, str) else each
    return dict(islice(found.items(), _MOST_VALUES))


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    """What is in a mapping by its keys; of a list only mappings, because lists of numbers are long."""
    if isinstance(value, list | tuple):
        return ((number, each) for number, each in enumerate(value) if isinstance(each, dict | Made))
    pairs = value.items() if isinstance(value, dict) else value.pairs if isinstance(value, Made) else ()
    return ((key, each) for key, each in pairs if isinstance(key, str | int))
