"""``S3Manifest``: which objects a training run reads, listed once and pinned."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, Literal

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._datasets import _manifest_object
from s3torchconnector._datasets._build import build_samples, chosen
from s3torchconnector._datasets._manifest_sources import _ManifestSources
from s3torchconnector._datasets._origin import refuse_empty, refuse_other
from s3torchconnector._datasets._rows import Rows
from s3torchconnector._datasets._sample_columns import GROUPS
from s3torchconnector._datasets._stems import Groups, SplitKey
from s3torchconnector._errors import S3ConfigurationError, S3ObjectExistsError
from s3torchconnector._ranks import by_first
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector._s3client import S3Client
from s3torchconnector._types import ObjectInfo

__all__ = ["S3Manifest"]

_SOURCES = {each.__func__: name for name, each in vars(_ManifestSources).items() if isinstance(each, classmethod)}


class S3Manifest(_ManifestSources):
    """The samples of a training run: objects with their sizes and ETags, or parts of files. Listed once. Immutable.

    Make one with ``from_prefix``, ``from_tar`` or another of these, store it with ``save``, and have each process
    ``load`` it, or let ``shared`` do all this. A dataset that is made from a manifest lists nothing, and reads exactly
    the versions that were listed: an object that was overwritten since raises ``S3ObjectChangedError``, one that was
    deleted ``S3NotFoundError``, and new objects do not exist for it.

    A manifest needs 32 bytes and the key for each object; of archives, 12 bytes and the name for each sample, and 18
    for each file; of row groups and MDS samples, 18 bytes and the digits of a number. Forked and spawned workers share
    this memory.

    Example:
        >>> from s3torchconnector import S3Manifest
        >>> manifest = S3Manifest.from_prefix("s3://my-bucket/images/", region="us-east-1", suffixes=".png")
        >>> len(manifest), manifest.total_bytes, manifest[0].key
        (3, 30, 'images/0.png')
    """

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
            S3FormatError: it is not a manifest, or a damaged one.
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
        make: Callable[..., S3Manifest] | None = None,
        **arguments: Any,
    ) -> S3Manifest:
        """Load the manifest at ``at``. If there is none yet, make it and store it there.

        All processes of a job call this, and get the same manifest. If there is a process group, rank 0 makes it, and
        its errors are raised in all ranks. Otherwise each may make it, and all load the one that was stored first.

        Args:
            s3_uris: see ``from_prefix``.
            at: the URI of the manifest.
            region, endpoint, s3client_config, directory: see ``load``.
            make: by default ``from_prefix``; ``S3Manifest.from_tar`` for archives, and so on.
            arguments: of ``make``, such as filters. They are not compared with those of a manifest that is there.

        Raises:
            S3ConfigurationError: there are no samples; or a manifest is there that was made of other URIs. (That is not
                known if ``make`` is a function of yours.)
            S3Exception: see ``from_prefix``, ``save`` and ``load``.
        """
        asked = s3_uris if isinstance(s3_uris, str) else list(s3_uris)
        where: dict[str, Any] = {"region": region, "endpoint": endpoint, "s3client_config": s3client_config}

        def ensure() -> None:
            if not _manifest_object.exists(S3Client(**where), at):
                _store_first((make or cls.from_prefix)(asked, **where, **arguments), asked, at)

        by_first(ensure)
        shared = cls.load(at, **where, directory=directory)
        refuse_other(shared._rows, asked, at, _own_name(make or cls.from_prefix))
        return shared

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
        """Make a manifest of the samples for which ``predicate`` is True. It gets each one's ``ObjectInfo``.

        The ``key`` of a sample in an archive is the archive's, a slash, and the sample's ``__key__``; in a file of
        Parquet or MDS, the file's, a slash, and the number of the row group or sample; that of several objects is what
        their keys have in common. ``size`` is that of the sample.
        """
        return self._of(i for i in range(len(self)) if predicate(self._rows.info(i)))

    def group_by_stem(
        self,
        *,
        required: Collection[str] = (),
        missing: Literal["raise", "drop"] = "raise",
        split: SplitKey | None = None,
    ) -> S3Manifest:
        """Make a manifest whose samples are several objects each: an image and its caption.

        By default these are objects whose keys are equal up to the first dot of the name: ``a/1.jpg`` and ``a/1.txt``.
        A transform gets the dict that ``from_tar`` describes, of ``__url__`` the first object's, with the bytes of all
        objects, which are fetched at the same time, each in the version that was listed. Objects without a dot are left
        out.

        Args:
            required: names that each sample must have, such as ``("jpg", "txt")``.
            missing: what to do with samples that lack one: ``"raise"``, or ``"drop"``, which logs how many they were.
            split: makes of a key the name of its sample and its name there, or None to leave it out.

        Raises:
            S3FormatError: a sample lacks an object, or has two of one name.
            S3ConfigurationError: the samples of this manifest are no objects.
        """
        if not isinstance(self._rows, Rows):
            raise S3ConfigurationError("group_by_stem groups objects: make the manifest with from_prefix")
        header = self._rows.header
        groups = Groups(self._rows, split, required, missing)
        return S3Manifest(build_samples(GROUPS, groups, header.origin, created=header.created), self._client)

    def split(self, fraction: float, *, seed: int = 0) -> tuple[S3Manifest, S3Manifest]:
        """Split the samples at random, for training and evaluation.

        A hash of the key (see ``filter``) decides, so a sample stays where it is if others are added or removed.

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
            digest = blake2b(rows.name_bytes(i), key=key, digest_size=8).digest()
            marks[i] = int.from_bytes(digest, "little") < limit
        return (
            self._of(i for i, mark in enumerate(marks) if mark),
            self._of(i for i, mark in enumerate(marks) if not mark),
        )

    def _of(self, numbers: Iterable[int]) -> S3Manifest:
        return S3Manifest(chosen(self._rows, numbers), self._client)

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
        """The sizes of all samples, added up."""
        return self._rows.total_bytes

    @property
    def fingerprint(self) -> str:
        """What identifies the samples, in their order and versions: 64 hexadecimal digits."""
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
        return list(map(self._rows.size, numbers))

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
        what = "objects" if isinstance(self._rows, Rows) else "samples"
        return f"S3Manifest({origin}: {len(self):,} {what}, fingerprint {self.fingerprint[:8]})"


def _own_name(make: Callable[..., S3Manifest]) -> str | None:
    """The name of a function that makes manifests; None if it is the program's."""
    function = getattr(make, "__func__", None)
    return _SOURCES.get(function) if function is not None else None


def _store_first(manifest: S3Manifest, asked: str | list[str], at: str) -> None:
    """Store a manifest that is to be shared, unless another job was first."""
    refuse_empty(manifest._rows, asked, at)
    with contextlib.suppress(S3ObjectExistsError):
        manifest.save(at)
