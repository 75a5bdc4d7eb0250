"""``S3Manifest``: which objects a training run reads, listed once and pinned."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._datasets import _chosen_objects, _manifest_object
from s3torchconnector._datasets._chosen_objects import Filter
from s3torchconnector._datasets._rows import Row, Rows, build
from s3torchconnector._errors import S3ObjectExistsError
from s3torchconnector._ranks import by_first
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo

__all__ = ["S3Manifest"]


class S3Manifest:
    """The objects of a training run: their keys, sizes and ETags, listed once. Immutable.

    Make one with ``from_prefix`` or ``from_objects``, store it with ``save``, and have each process ``load`` it, or let
    ``shared`` do all that. A dataset that is made from a manifest lists nothing, and reads exactly the versions that
    were listed: an object that was overwritten since raises ``S3ObjectChangedError``, one that was deleted
    ``S3NotFoundError``, and new objects do not exist for it.

    A manifest takes 32 bytes and its key per object, in memory that forked and spawned workers share.

    Example:
        >>> from s3torchconnector import S3Manifest
        >>> manifest = S3Manifest.from_prefix("s3://my-bucket/images/", region="us-east-1", suffixes=".png")
        >>> len(manifest), manifest.total_bytes, manifest[0].key
        (3, 30, 'images/0.png')
    """

    def __init__(self, rows: Rows, client: S3Client) -> None:
        self._rows = rows
        self._client = client

    @classmethod
    def from_prefix(
        cls,
        s3_uris: str | Iterable[str],
        *,
        region: str,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
        suffixes: str | Collection[str] | None = None,
        glob: str | None = None,
        min_size: int = 0,
        max_size: int | None = None,
        storage_classes: Collection[str] | None = None,
        predicate: Callable[[ObjectInfo], bool] | None = None,
    ) -> S3Manifest:
        """List the objects whose keys begin with a prefix, or with one of several, and keep those that pass.

        Empty objects whose key ends with ``/`` (directory markers) are left out. So are archived objects, with a
        warning; ``archived`` says how many there were.

        Args:
            s3_uris: one or more prefixes, such as ``"s3://bucket/train/"``; none of them below another.
            region, endpoint, s3client_config: see ``S3Client``.
            suffixes: with one of which a key must end, such as ``(".jpg", ".png")``.
            glob: a pattern that the whole key must match, such as ``"train/*/left-*.png"``; ``*`` matches ``/`` too.
            min_size, max_size: bounds of the size, in bytes.
            storage_classes: the only ones to keep. One that archives is kept only if it is named here.
            predicate: called with the ``ObjectInfo`` of what passed the others; True keeps the object.

        Raises:
            TypeError, ValueError: a URI is not an S3 URI, or one prefix lies below another.
            S3Exception: an error occurred accessing S3.
        """
        client = S3Client(region, endpoint=endpoint, s3client_config=s3client_config)
        uris = [s3_uris] if isinstance(s3_uris, str) else list(s3_uris)
        chosen = Filter(suffixes, glob, min_size, max_size, storage_classes, predicate)
        return cls(build(_chosen_objects.Listed(client, uris, chosen), uris), client)

    @classmethod
    def from_objects(
        cls,
        object_uris: str | Iterable[str],
        *,
        region: str,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
    ) -> S3Manifest:
        """Describe the objects that are named, in their order. Sends a HEAD request for each, many at a time.

        Raises:
            TypeError, ValueError: a URI does not name an object.
            S3NotFoundError: there is no such object.
            S3Exception: an error occurred accessing S3.
        """
        client = S3Client(region, endpoint=endpoint, s3client_config=s3client_config)
        uris = [object_uris] if isinstance(object_uris, str) else object_uris
        return cls(build(_chosen_objects.named(client, uris)), client)

    @classmethod
    def load(
        cls,
        s3_uri: str,
        *,
        region: str,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
        directory: str | None = None,
    ) -> S3Manifest:
        """Load a manifest that was stored by ``save``. Every byte of it is checked.

        Args:
            s3_uri: the object.
            region, endpoint, s3client_config: see ``S3Client``.
            directory: a local directory, for one copy that all processes of the node map. The first process fetches
                the object; the others wait for it. Without one, each process that calls this fetches it.

        Raises:
            S3FormatError: it is no manifest, or a damaged one.
            S3NotFoundError: there is no such object.
            S3Exception: an error occurred accessing S3.
        """
        client = S3Client(region, endpoint=endpoint, s3client_config=s3client_config)
        return cls(_manifest_object.fetch(client, s3_uri, directory), client)

    @classmethod
    def shared(
        cls,
        s3_uris: str | Iterable[str],
        *,
        at: str,
        region: str,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
        directory: str | None = None,
        **filters: Any,
    ) -> S3Manifest:
        """Load the manifest at ``at``. If there is none yet, list the prefixes and store it there.

        All processes of a job call this, and get the same manifest. If there is a process group, rank 0 lists and
        stores, and its errors are raised in all ranks. Otherwise each process may list, one of them stores, and all
        load what that one has stored.

        Args:
            s3_uris: see ``from_prefix``.
            at: the URI of the manifest.
            region, endpoint, s3client_config: see ``S3Client``.
            directory: see ``load``.
            filters: as in ``from_prefix``. They are not compared with those of a manifest that is there.

        Raises:
            S3Exception: see ``from_prefix``, ``save`` and ``load``.
        """
        where: dict[str, Any] = {"region": region, "endpoint": endpoint, "s3client_config": s3client_config}

        def ensure() -> None:
            client = S3Client(region, endpoint=endpoint, s3client_config=s3client_config)
            if not _manifest_object.exists(client, at):
                try:
                    cls.from_prefix(s3_uris, **where, **filters).save(at)
                except S3ObjectExistsError:
                    return  # another job was first

        by_first(ensure)
        return cls.load(at, **where, directory=directory)

    def save(self, s3_uri: str, *, overwrite: bool = False) -> None:
        """Store the manifest as one object, with the client that it was made with.

        Args:
            s3_uri: where to.
            overwrite: whether to replace what is there. Jobs that resume need the manifest that they began with.

        Raises:
            S3ObjectExistsError: there is an object, and ``overwrite`` is False.
            S3Exception: an error occurred accessing S3.
        """
        _manifest_object.store(self._client, s3_uri, self._rows, overwrite=overwrite)

    def filter(self, predicate: Callable[[ObjectInfo], bool]) -> S3Manifest:
        """Make a manifest of the objects for which ``predicate`` is True. It gets each one's ``ObjectInfo``."""
        return self._of(row for row in self._rows if predicate(ObjectInfo(row.key, row.etag, row.size, 0)))

    def split(self, fraction: float, *, seed: int = 0) -> tuple[S3Manifest, S3Manifest]:
        """Split the objects at random, for training and evaluation.

        A hash of the key decides, so an object stays where it is if others are added or removed.

        Args:
            fraction: about how many of the objects the first manifest gets, from 0 to 1.
            seed: another number gives another split.

        Raises:
            ValueError: ``fraction`` is not from 0 to 1.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"a fraction is a number from 0 to 1: fraction={fraction}")
        limit, key = fraction * 2**64, seed.to_bytes(16, "little", signed=True)
        rows, marks = self._rows, bytearray(len(self))
        for i in range(len(self)):
            digest = blake2b(rows.key_bytes(i), key=key, digest_size=8).digest()
            marks[i] = int.from_bytes(digest, "little") < limit
        return self._of(rows.row(i) for i, mark in enumerate(marks) if mark), self._of(
            rows.row(i) for i, mark in enumerate(marks) if not mark
        )

    def _of(self, rows: Iterable[Row]) -> S3Manifest:
        return S3Manifest(build(rows, self._rows.header.origin, created=self._rows.header.created), self._client)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> S3BucketKeyData:
        """The object at ``i``, which may be negative, with its size and ETag in ``object_info``.

        Raises:
            IndexError: there is none.
        """
        return self._rows[i + len(self) if i < 0 else i]

    def __iter__(self) -> Iterator[S3BucketKeyData]:
        return map(self._rows.__getitem__, range(len(self)))

    @property
    def total_bytes(self) -> int:
        """The sizes of all objects, added up."""
        return sum(self._rows.sizes)

    @property
    def fingerprint(self) -> str:
        """What identifies the objects, in their order and versions: 64 hexadecimal digits."""
        return self._rows.header.fingerprint

    @property
    def archived(self) -> int:
        """How many objects were left out of the listing since they are archived."""
        return self._rows.header.archived

    @property
    def created(self) -> int:
        """When the objects were listed, in seconds since 1970."""
        return self._rows.header.created

    def _sizes_of(self, numbers: Sequence[int]) -> list[int]:
        sizes = self._rows.sizes
        return [sizes[number] for number in numbers]

    def _place(
        self, region: str | None, endpoint: str | None, s3client_config: S3ClientConfig | None
    ) -> tuple[str, str | None, S3ClientConfig]:
        """Where the objects are: what was given, else where they were listed."""
        listed_by = self._client
        return (
            listed_by.region if region is None else region,
            listed_by.endpoint if endpoint is None else endpoint,
            listed_by.s3client_config if s3client_config is None else s3client_config,
        )

    def __repr__(self) -> str:
        origin = ", ".join(self._rows.header.origin) or "named objects"
        return f"S3Manifest({origin}: {len(self):,} objects, fingerprint {self.fingerprint[:8]})"
