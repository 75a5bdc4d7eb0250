"""What is below a prefix: files of tensors with or without an index, a distributed checkpoint, numbered checkpoints."""

from __future__ import annotations

import re
import sys
from functools import partial
from itertools import islice
from typing import Any

from s3torchconnector._checkpoint_manager._manifest import step_of
from s3torchconnector._cli._inspect._dcp import METADATA_NAME, describe_checkpoint
from s3torchconnector._cli._inspect._description import Description
from s3torchconnector._cli._inspect._objects import describe_object, json_of
from s3torchconnector._cli._inspect._remote_file import RemoteFile
from s3torchconnector._cli._jobs import Jobs
from s3torchconnector._errors import S3FormatError, S3NotFoundError
from s3torchconnector._s3client import S3Client
from s3torchconnector._uri import display_uri

_PAGES = 10  # of a listing, in which something known must come
_AT_A_TIME = 16
_INDEXES = (".safetensors.index.json", ".bin.index.json")
_WEIGHTS = re.compile(r".*\.(safetensors|bin|pt|pth|ckpt)", re.DOTALL)
_OF_CONFIG = ("architectures", "model_type", "torch_dtype", "dtype", "transformers_version")


class Folder:
    """The objects directly below a prefix, and what they are together.

    Args:
        prefix: ends with a slash, or is empty.
    """

    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._uri = display_uri(bucket, prefix)
        self._names: list[str] = []
        self._folders: list[str] = []

    def describe(self) -> Description | None:
        """Describe it; None if there are numbered checkpoints.

        Raises:
            S3FormatError: there is nothing that is known, or it is damaged.
            S3Exception: an error occurred accessing S3.
        """
        for page in islice(self._client.list_objects(self._bucket, self._prefix, "/"), _PAGES):
            self._names += [info.key.removeprefix(self._prefix) for info in page.object_info]
            self._folders += page.common_prefixes
            if METADATA_NAME in self._names:
                file = self._open(METADATA_NAME)
                return describe_checkpoint(self._client, self._bucket, self._prefix, file)
            if any(step_of(name) is not None for name in self._names):
                return None
        for index in (name for end in _INDEXES for name in self._names if name.endswith(end)):
            return self.describe_index(index)
        weights = [name for name in self._names if _WEIGHTS.fullmatch(name)]
        if not weights:
            raise S3FormatError(self._nothing())
        safetensors = [name for name in weights if name.endswith(".safetensors")]  # beside them is what made them
        chosen = safetensors or weights
        return self._describe_files(chosen, f"folder with {len(chosen)} {'file' if len(chosen) == 1 else 'files'}")

    def describe_index(self, name: str) -> Description:
        """Describe the files that an index names.

        Raises:
            S3FormatError: it is no index, or a file is damaged.
            S3Exception: an error occurred accessing S3.
        """
        index = json_of(self._open(name))
        places = index.get("weight_map") if index is not None else None
        if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
            uri = display_uri(self._bucket, self._prefix + name)
            raise S3FormatError(f"{uri} cannot be inspected: it has no weight_map, as an index of files of tensors has")
        for tensor, file in places.items():
            if not {"", ".", ".."}.isdisjoint(file.split("/")):
                raise S3FormatError(
                    f"{display_uri(self._bucket, self._prefix + name)} cannot be inspected: it says that the tensor "
                    f"{tensor} is in the file {file!r}, but names of files are relative to its folder, and stay in it"
                )
        found = self._describe_files(sorted(set(places.values())), "model of several files, with an index")
        there = {tensor.name: tensor.file for tensor in found.tensors}
        unknown = {*places.values()} - {*there.values()}  # files that are missing or damaged, which was said already
        found.problems += [
            f"{tensor} is not in {file}, where the index says it is"
            for tensor, file in places.items()
            if there.get(tensor) != file and file not in unknown
        ]
        found.problems += [f"{tensor}, in {file}, is not in the index" for tensor, file in there.items()
                           if tensor not in places]  # fmt: skip
        return found

    def _describe_files(self, names: list[str], title: str) -> Description:
        found = Description(self._uri, "folder", title)
        described: dict[str, Description] = {}
        with Jobs(_AT_A_TIME, sys.maxsize) as jobs:  # unlike an executor's, they do not keep Ctrl-C waiting
            for name in names:
                jobs.submit(partial(self._describe_file, name, described, found.problems))
        for name in names:
            file = described[name]
            found.tensors += [tensor._replace(file=name) for tensor in file.tensors]
            found.problems += [f"{name}: {problem}" for problem in file.problems]
        found.facts = {"files": len(names), "size": sum(file.facts.get("size", 0) for file in described.values())}
        found.facts |= self._config()
        return found

    def _describe_file(self, name: str, described: dict[str, Description], problems: list[str]) -> None:
        try:
            described[name] = describe_object(self._open(name))
        except (S3NotFoundError, S3FormatError) as error:
            problems.append(str(error))
            described[name] = Description(name, "", "")

    def _config(self) -> dict[str, Any]:
        """What ``config.json`` says of a model of Hugging Face's."""
        try:
            config = json_of(self._open("config.json")) or {}
        except S3NotFoundError:
            return {}
        return {name: config[name] for name in _OF_CONFIG if name in config}

    def _open(self, name: str) -> RemoteFile:
        return RemoteFile(self._client, self._bucket, self._prefix + name)

    def _nothing(self) -> str:
        if not self._names and not self._folders:
            return f"there is nothing at {self._uri}: neither an object nor a prefix of objects"
        some = [*self._names, *self._folders][:5]
        return (
            f"{self._uri} has nothing that can be inspected: no .metadata, no index.json of a model, no file of "
            f"tensors, no numbered checkpoints. It has {', '.join(some)}"
        )
