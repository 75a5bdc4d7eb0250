"""``S3ClientConfig``: every setting in one frozen value, validated once, handed on whole."""

import math
from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real

from s3torchconnector._errors import S3ConfigurationError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

MIN_PART_SIZE = 5 * MIB
MAX_PART_SIZE = 5 * GIB

_COUNTS = ("part_size", "max_attempts", "max_connections", "memory_budget")
_TIMEOUTS = ("connect_timeout", "read_timeout", "operation_timeout")
_AMOUNTS = ("throughput_target_gbps", *_TIMEOUTS)
_SWITCHES = ("unsigned", "force_path_style", "requester_pays", "hedge")
_LONGEST = 1_000_000  # seconds, eleven days: the kernel counts waiting times as 32 bits of milliseconds
_CHECKSUM_MODES = ("when_supported", "required", "off")
_TYPES = (
    (_COUNTS, Integral, "an integer"),
    (_AMOUNTS, Real, "a number"),
    (_SWITCHES, bool, "True or False"),
    (("checksum",), str, "a string"),
    (("profile",), (str, type(None)), "the name of a profile, or None"),
)


@dataclass(frozen=True)
class S3ClientConfig:
    """A dataclass exposing configurable parameters for the S3 client.

    What each setting is counted for:

    - **a process**: ``max_connections``, ``memory_budget``. Clients of a process with the same region, endpoint and
      configuration share one set of connections, threads and memory, whatever credentials they have. Clients that
      differ have a set each. Processes add up: a node with 8 ranks and 8 data workers for each takes up to 72 times
      ``memory_budget``.
    - **a node**: ``throughput_target_gbps``, where data workers load. A worker of a ``DataLoader`` aims for this number
      divided by its loader's ``num_workers`` and by ``LOCAL_WORLD_SIZE`` (the ranks on the node, as ``torchrun`` tells
      it). The data workers of a node together have at most eight times ``max_connections``, but at least 32 each, or
      all of ``max_connections`` if that is less. Processes that are no data workers, such as a rank that loads its part
      of a checkpoint, take the whole number each.
    - **a client**: ``max_attempts``, the timeouts, ``hedge``, and what is learned while it runs: by bucket, whether it
      keeps checksums and where it is; by host, how many requests it admits when it asks to slow down.

    Memory that equal clients take in one process, beside what a program passes in and what reads return, is at most::

        memory_budget                     read-ahead, look-ahead, and parts that wait for upload
        + memory_budget / 8               read-ahead that a read waits for (at least 4 MiB)
        + 5 MiB for each open writer      the smallest part that S3 takes; it doubles every 900 parts
        + 1 to 2 MiB for each reader      that reads at random, or whose bucket has not told if it keeps checksums
        + a part for each reader          that a dataset has delivered, until it is closed or dropped
        + max_connections x (64 KiB .. 6 MiB)   the kernel's receive windows, by its own tuning

    If there is no room, reads fetch what they are asked for and no more; readers that have not been used for a second
    let go of what they have not read, and fetch it again when it is read; writers send parts before they are full.

    Args:
        throughput_target_gbps: throughput in Gbit/s that we are trying to reach: sizes how much is kept in flight.
            Data workers divide it; on a node with a faster network, raise it to what the network brings.
        part_size: size (bytes) of the parts that objects are downloaded and uploaded in, 5 MiB to 5 GiB. Uploads
            grow their parts as they go on, so that 10,000 parts hold 9 TiB and more.
        unsigned: send requests without a signature (public buckets); no credentials are looked up.
        force_path_style: put the bucket in the path (``https://host/bucket/key``) instead of the host name.
        max_attempts: how many times a request is tried before its error is raised.
        profile: the profile of the shared AWS configuration files to take credentials and settings from.
        requester_pays: agree to pay for requests to requester-pays buckets; such requests must be signed.
        max_connections: most connections open at a time, those that are idle among them, and threads to serve them
            (one more for each further client that shares them). Connections and threads end when they have been idle
            for 20 seconds.
        memory_budget: bytes that all read-ahead, look-ahead and upload buffers may take.
        connect_timeout: seconds to wait for a connection (name lookup excluded, TLS handshake included).
        read_timeout: seconds without a single byte after which a request is given up and tried again.
        checksum: ``"when_supported"`` sends checksums with uploads, and compares each object that was read whole with
            the checksum that the server offers of it; what cannot be compared is told in the log, once for each bucket,
            with the reason; ``"required"`` makes that an error; ``"off"`` does neither.
        operation_timeout: seconds after which a request with all its attempts is given up with S3TimeoutError. Time
            in which a read waits for the program, and not for S3, does not count.
        hedge: ask again, on another connection, for bytes whose answer does not begin within three times the 95th
            percentile of recent ones (at least 100 ms); at most one extra request for twenty.

    Raises:
        S3ConfigurationError: (a ``ValueError``) a value that cannot work.
    """

    throughput_target_gbps: float = 10.0
    part_size: int = 8 * MIB
    unsigned: bool = False
    force_path_style: bool = False
    max_attempts: int = 10
    profile: str | None = None
    requester_pays: bool = False
    _: KW_ONLY
    max_connections: int = 192
    memory_budget: int = 128 * MIB
    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    checksum: str = "when_supported"
    operation_timeout: float = 900.0
    hedge: bool = True

    def __post_init__(self) -> None:
        self._check_types()
        if not MIN_PART_SIZE <= self.part_size <= MAX_PART_SIZE:
            raise S3ConfigurationError(
                f"invalid configuration: part size must be at between 5MiB and 5GiB: part_size={self.part_size!r} bytes"
            )
        for name in (*_COUNTS, *_AMOUNTS):
            value = getattr(self, name)
            if not 0 < value < math.inf:  # not true of NaN either
                raise S3ConfigurationError(
                    f"invalid configuration: {name} must be positive and finite: {name}={value!r}"
                )
            if name in _TIMEOUTS and value > _LONGEST:
                raise S3ConfigurationError(
                    f"invalid configuration: {name} must be at most {_LONGEST:,} seconds: {name}={value!r}"
                )
        if self.checksum not in _CHECKSUM_MODES:
            raise S3ConfigurationError(
                f"invalid configuration: checksum must be one of {', '.join(_CHECKSUM_MODES)}: "
                f"checksum={self.checksum!r}"
            )
        if self.requester_pays and self.unsigned:
            raise S3ConfigurationError(
                "invalid configuration: requester_pays=True needs signed requests, since somebody must be billed: "
                "leave out unsigned=True"
            )

    def _check_types(self) -> None:
        for names, kind, wanted in _TYPES:
            for name in names:
                value = getattr(self, name)
                if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                    raise S3ConfigurationError(f"invalid configuration: {name} must be {wanted}: {name}={value!r}")

    @property
    def _bytes_per_second(self) -> float:
        """``throughput_target_gbps`` in bytes a second."""
        return self.throughput_target_gbps * 1e9 / 8
