"""The job of one worker process; travels as JSON on its command line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

TENSORS = 16  # of a checkpoint
REGION = "us-east-1"


@dataclass(frozen=True)
class Job:
    """Where the objects are and how many of them to use.

    `big` is a checkpoint of `size` bytes; `small` and six digits name objects of `small_size` bytes, of
    which `objects` are read; `tree` is the prefix to list; `copy` is the checkpoint as a local file;
    `connections` is for the limit; `ranks` processes save or load a distributed checkpoint.
    """

    bucket: str
    size: int
    small_size: int
    objects: int
    copy: str
    connections: int = 16
    prefix: str = ""
    tree: str = ""
    region: str = REGION
    endpoint: str | None = None
    path_style: bool = True
    signed: bool = False  # whether the server insists on signatures
    ranks: int = 1

    @property
    def big(self) -> str:
        return f"{self.prefix}checkpoint.pt"

    @property
    def saved(self) -> str:
        return f"{self.prefix}saved.pt"

    @property
    def safetensors(self) -> str:
        return f"{self.prefix}model.safetensors"

    def stored(self, ranks: int) -> str:
        """The prefix of the distributed checkpoint that so many ranks have stored."""
        return f"{self.prefix}dcp-{ranks}"

    def small(self, number: int) -> str:
        return f"{self.prefix}small/{number:06d}"

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        return cls(**json.loads(text))
