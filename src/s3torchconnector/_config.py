"""``S3ClientConfig``: every setting in one frozen value, validated once and passed on whole."""

import math
from dataclasses import KW_ONLY, dataclass, fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._late_imports import no_fork
from s3torchconnector._sendable import name_of

if TYPE_CHECKING:
    from s3torchconnector._customer_key import S3CustomerKey
    from s3torchconnector._s3credentials import GivenCredentials
    from s3torchconnector._write_options import S3WriteOptions
else:  # for typing.get_type_hints; a configuration without them does not wait for their imports
    S3CustomerKey = GivenCredentials = S3WriteOptions = Any

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

MIN_PART_SIZE = 5 * MIB
MAX_PART_SIZE = 5 * GIB

_COUNTS = ("part_size", "max_attempts", "max_connections", "memory_budget")
_TIMEOUTS = ("connect_timeout", "read_timeout", "operation_timeout")
_AMOUNTS = ("throughput_target_gbps", *_TIMEOUTS)
_SWITCHES = ("unsigned", "force_path_style", "requester_pays", "hedge", "equal_parts", "verify_tls", "keep_version")
_LONGEST = 1_000_000  # seconds, eleven days: the kernel counts the time of a wait as 32 bits of milliseconds
_CHECKSUM_MODES = ("when_supported", "required", "off")
_TYPES = (
    (_COUNTS, Integral, "an integer"),
    (_AMOUNTS, Real, "a number"),
    (_SWITCHES, bool, "True or False"),
    (("checksum",), str, "a string"),
    (("progress",), (bool, type(None)), "True, False or None"),
    (("profile",), (str, type(None)), "the name of a profile, or None"),
    (("proxy_ca_bundle",), (str, type(None)), "the path of a file, or None"),
)


@dataclass(frozen=True, repr=False, eq=False)
class S3ClientConfig:
    """The settings of a client: a frozen dataclass that is validated when it is made.

    What a setting is counted for:

    - **a process**: ``max_connections``, ``memory_budget``. Clients of a process that have the same region, endpoint
      and configuration share connections, threads and memory, whatever credentials they use. Clients that differ share
      nothing. Processes add up: a node with 8 ranks and 8 data workers for each uses up to 72 times
      ``memory_budget``.
    - **a node**: ``throughput_target_gbps``, for data workers. A worker of a ``DataLoader`` aims for this number
      divided by its loader's ``num_workers`` and by ``LOCAL_WORLD_SIZE`` (the number of ranks on the node, which
      ``torchrun`` sets). All data workers of a node together have at most eight times ``max_connections``, but at least
      32 each, or all of ``max_connections`` if that is less. Other processes, such as a rank that loads its part of a
      checkpoint, use the whole number each.
    - **a client**: ``max_attempts``, the timeouts, ``hedge``, and what a client learns while it runs: whether a bucket
      keeps checksums and where it is, and how many requests a host admits when it asks to slow down.

    Memory that equal clients use in one process, not counting buffers that a program passes in and what reads return,
    is at most::

        memory_budget                     read-ahead, look-ahead, and parts that wait for upload
        + memory_budget / 8               read-ahead that a read is waiting for (at least 4 MiB)
        + 5 MiB for each open writer      the smallest part that S3 accepts; it doubles every 900 parts; with
                                          ``equal_parts``, a whole part
        + 1 to 2 MiB for each reader      that reads at random, or whose bucket has not shown if it keeps checksums
        + a part for each reader          that a dataset has handed out, until it is closed or dropped
        + max_connections x (64 KiB .. 6 MiB)   the kernel's receive windows, which it tunes itself

    If there is no room, reads fetch only what they are asked for, readers that have been idle for a second drop what
    they have not handed out and fetch it again later, and writers send parts before they are full.

    Args:
        throughput_target_gbps: throughput to aim for, in Gbit/s. Determines how much is kept in flight. Set it to what
            the node's network can do.
        part_size: size of the parts in which objects are downloaded and uploaded, 5 MiB to 5 GiB, in bytes. Uploads
            increase it as they go on, so that 10,000 parts hold 9 TiB and more.
        unsigned: send requests without a signature, for public buckets. No credentials are looked up.
        force_path_style: put the bucket in the path (``https://host/bucket/key``) instead of the host name.
        max_attempts: how many times a request is tried before its error is raised.
        profile: profile of the shared AWS configuration files from which credentials and settings are taken.
        requester_pays: agree to pay for requests to requester-pays buckets. Requires signed requests.
        max_connections: largest number of open connections, idle ones included, and of threads that serve them (one
            more for each further client that shares them). Both end after 20 to 40 idle seconds.
        memory_budget: bytes that all read-ahead, look-ahead and upload buffers may use.
        connect_timeout: seconds to wait for a connection, TLS handshake included, name lookup excluded.
        read_timeout: seconds without a single byte after which a request fails and is tried again.
        checksum: ``"when_supported"`` sends checksums with uploads, and compares each object that was read whole with
            the checksum that the server keeps of it. If an object cannot be compared, the log says why, once for each
            bucket. ``"required"`` makes that an error. ``"off"`` does neither.
        operation_timeout: seconds after which a request with all its attempts fails with ``S3TimeoutError``. Time in
            which a read waits for the program does not count.
        hedge: send a request again, on another connection, if its response has not begun after three times the 95th
            percentile of recent ones (at least 100 ms). At most one extra request in twenty.
        equal_parts: give all parts of an upload but the last one the same length, for servers that demand it. On
            endpoints of Cloudflare R2, uploads have such parts anyway. If the size of an upload is not known
            beforehand, its parts have ``part_size`` or 32 MiB, whichever is more, and 10,000 of them must hold it. Each
            writer uses the memory of one part, also if the budget has no room for it.
        verify_tls: verify the server's certificate. False is only for tests: anyone who intercepts the connection can
            then read and change the data. A warning is logged. Applies to a proxy's certificate, too.
        proxy_ca_bundle: path of a PEM file with the certificate authorities to trust for an ``https://`` proxy. By
            default, those that are trusted for the endpoint.
        write_options: encryption, ACL, storage class, tags and metadata of what is stored, see ``S3WriteOptions``.
        credentials: what to sign requests with: ``S3Credentials``, or a function without parameters that returns them.
            None looks them up where AWS tools do. The function is called in each process before the first request,
            again before what it returned ends (its ``expiry``), and after S3 has refused the keys as expired: by one
            thread at a time, without a lock of this package, while requests go on with the keys they have or wait for
            the first. An error of it is logged as long as the present keys are valid. Otherwise it is raised as
            ``S3CredentialsError``, after up to three calls (``max_attempts`` for errors of the network). For spawned
            workers it must be picklable: at the top level of a module.
        customer_key: the key that objects are encrypted with when they are stored, and read with (SSE-C), see
            ``S3CustomerKey``.
        expected_bucket_owner: id of the account, 12 digits, that the buckets of all requests must belong to. S3 denies
            access to any other bucket.
        keep_version: if an object in a bucket that keeps versions is replaced or deleted while it is read, continue
            with the version that was begun, instead of raising ``S3ObjectChangedError``. Needs ``s3:GetObjectVersion``.

    Raises:
        S3ConfigurationError: (a ``ValueError``) a value that cannot work. The text names the field.

    Example:
        >>> from s3torchconnector import S3Checkpoint, S3ClientConfig
        >>> config = S3ClientConfig(max_attempts=5, memory_budget=256 * 1024**2)
        >>> checkpoint = S3Checkpoint("us-east-1", s3client_config=config)
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
    equal_parts: bool = False
    verify_tls: bool = True
    proxy_ca_bundle: str | None = None
    write_options: "S3WriteOptions | None" = None
    credentials: "GivenCredentials | None" = None
    customer_key: "S3CustomerKey | None" = None
    expected_bucket_owner: str | None = None
    keep_version: bool = False
    progress: bool | None = None

    def __post_init__(self) -> None:
        self._check_types()
        self._check_credentials()
        if not MIN_PART_SIZE <= self.part_size <= MAX_PART_SIZE:
            raise S3ConfigurationError(
                # "at between" as in 1.5.0, whose text programs match.
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
                "invalid configuration: requester_pays=True needs signed requests, which say whom to bill: "
                "leave out unsigned=True"
            )
        self._check_account()

    def _check_types(self) -> None:
        for names, kind, wanted in _TYPES:
            for name in names:
                value = getattr(self, name)
                if not isinstance(value, kind) or (isinstance(value, bool) and kind in (Integral, Real)):
                    raise _wrong_type(name, wanted, value)
        if self.write_options is not None and not isinstance(self.write_options, options_class()):
            raise _wrong_type("write_options", "S3WriteOptions, or None", self.write_options)

    def _check_account(self) -> None:
        key: object = self.customer_key
        if key is not None and not _is_customer_key(key):
            kind = type(key).__name__  # its value may be the key
            raise S3ConfigurationError(
                f"invalid configuration: customer_key must be S3CustomerKey, or None, not {kind}"
            )
        owner = self.expected_bucket_owner
        if owner is not None and not (
            isinstance(owner, str) and owner.isascii() and owner.isdigit() and len(owner) == 12
        ):
            raise S3ConfigurationError(
                "invalid configuration: expected_bucket_owner must be the id of an account, 12 digits, or None: "
                f"expected_bucket_owner={owner!r}"
            )
        if self.write_options is not None:
            self._options_of_write(None)

    def _options_of_write(self, given: "S3WriteOptions | None") -> "S3WriteOptions":
        """The options of one write: what is ``given``, and what the configuration says of the rest."""
        of_client = self.write_options or options_class()()
        options = of_client if given is None else given._over(of_client)
        if self.customer_key is not None and options.encryption is not None:
            raise S3ConfigurationError(
                "invalid configuration: customer_key already encrypts objects with your own key: leave out "
                f"encryption={options.encryption!r}"
            )
        return options

    def _check_credentials(self) -> None:
        if self.credentials is None:
            return
        if not _are_credentials(self.credentials) and not callable(self.credentials):
            raise S3ConfigurationError(  # without the value, which may be a secret
                "invalid configuration: credentials must be S3Credentials, or a function that returns them, not "
                f"{type(self.credentials).__name__}"
            )
        if self.unsigned:
            raise S3ConfigurationError(
                "invalid configuration: unsigned=True sends requests without a signature, so credentials cannot be "
                "used: leave out one of them"
            )

    # By hand: to make these two, as dataclasses do, takes as long as to import three modules.

    def __eq__(self, other: object) -> bool:
        return other.__dict__ == self.__dict__ if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __repr__(self) -> str:
        values = [(field.name, getattr(self, field.name)) for field in fields(self)]
        given = self.credentials
        shown = {} if given is None or _are_credentials(given) else {"credentials": f"<{name_of(given)}>"}
        return f"S3ClientConfig({', '.join([f'{name}={shown.get(name, repr(value))}' for name, value in values])})"

    def __getstate__(self) -> dict[str, Any]:
        if self.credentials is not None:
            with no_fork:
                from s3torchconnector._s3credentials import refuse_unpicklable

            refuse_unpicklable(self.credentials)
        return self.__dict__

    def __copy__(self) -> "S3ClientConfig":
        return self  # nothing of it can change

    def __deepcopy__(self, memo: object) -> "S3ClientConfig":
        return self

    @property
    def _bytes_per_second(self) -> float:
        """``throughput_target_gbps`` in bytes per second."""
        return self.throughput_target_gbps * 1e9 / 8


def _wrong_type(name: str, wanted: str, value: object) -> S3ConfigurationError:
    return S3ConfigurationError(f"invalid configuration: {name} must be {wanted}: {name}={value!r}")


# These import what most configurations do without.


def options_class() -> "type[S3WriteOptions]":
    with no_fork:
        from s3torchconnector import _write_options

    return _write_options.S3WriteOptions


def _is_customer_key(value: object) -> bool:
    with no_fork:
        from s3torchconnector import _customer_key

    return isinstance(value, _customer_key.S3CustomerKey)


def _are_credentials(value: object) -> bool:
    with no_fork:
        from s3torchconnector import _s3credentials

    return isinstance(value, _s3credentials.S3Credentials)
