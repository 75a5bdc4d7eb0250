"""Compatibility with 1.5.0: its native client and the types of its documented signatures, where programs import them.

``MountpointS3Client`` is the connector's ``S3Client`` with the parameters and streams of that client.
"""

from __future__ import annotations

from s3torchconnector._config import MIB, S3ClientConfig
from s3torchconnector._errors import S3Exception
from s3torchconnector._listing_results import ListObjectResult
from s3torchconnector._s3client import S3Client
from s3torchconnector._transfer import GetObjectStream, ListObjectStream, ObjectSource, PutObjectStream
from s3torchconnector._types import HeadObjectResult, ObjectInfo, RestoreStatus
from s3torchconnector._version import __version__
from s3torchconnector.testing import MockS3Client

__all__ = [
    "GetObjectStream",
    "HeadObjectResult",
    "ListObjectResult",
    "ListObjectStream",
    "MockMountpointS3Client",
    "MountpointS3Client",
    "ObjectInfo",
    "PutObjectStream",
    "RestoreStatus",
    "S3Exception",
    "__version__",
    "join_all_managed_threads",
]


class MountpointS3Client:
    """Objects as streams. Programs use ``S3Client``, which has readers and writers.

    Args:
        region: region of the buckets.
        user_agent_prefix: text put before this package's own in the User-Agent header.
        throughput_target_gbps, part_size, profile, unsigned, force_path_style, max_attempts: see ``S3ClientConfig``.
        endpoint: URL of the S3 server.

    Raises:
        S3ConfigurationError: (a ``ValueError``) a value that cannot work.
    """

    def __init__(
        self,
        region: str,
        user_agent_prefix: str = "",
        throughput_target_gbps: float = 10.0,
        part_size: int = 8 * MIB,
        profile: str | None = None,
        unsigned: bool = False,
        endpoint: str | None = None,
        force_path_style: bool = False,
        max_attempts: int = 10,
    ) -> None:
        self.region = region
        self.user_agent_prefix = user_agent_prefix
        self.throughput_target_gbps = throughput_target_gbps
        self.part_size = part_size
        self.profile = profile
        self.unsigned = unsigned
        self.endpoint = endpoint
        self.force_path_style = force_path_style
        self.max_attempts = max_attempts
        config = S3ClientConfig(
            throughput_target_gbps, part_size, unsigned, force_path_style, max_attempts, profile=profile
        )
        self._client = S3Client(region, endpoint=endpoint, user_agent=user_agent_prefix or None, s3client_config=config)

    def get_object(self, bucket: str, key: str, start: int | None = None, end: int | None = None) -> GetObjectStream:
        """Stream bytes ``start`` up to, but not including, ``end``."""
        return ObjectSource(self._client._runtime, bucket, key)(start, end)

    def put_object(self, bucket: str, key: str, storage_class: str | None = None) -> PutObjectStream:
        """Open a stream to write an object, which its ``close`` stores."""
        return self._client.put_object(bucket, key, storage_class).stream

    def list_objects(
        self, bucket: str, prefix: str = "", delimiter: str = "", max_keys: int = 1000
    ) -> ListObjectStream:
        """List objects, page by page."""
        return self._client.list_objects(bucket, prefix, delimiter, max_keys)

    def head_object(self, bucket: str, key: str) -> HeadObjectResult:
        """Return what S3 knows about an object."""
        return self._client.head_object(bucket, key)

    def delete_object(self, bucket: str, key: str) -> None:
        """Delete an object."""
        self._client.delete_object(bucket, key)

    def copy_object(self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str) -> None:
        """Copy an object inside S3."""
        self._client.copy_object(src_bucket, src_key, dst_bucket, dst_key)


class MockMountpointS3Client:
    """A server of its own with one bucket, for tests, and a client for it; see ``testing.MockS3Client``."""

    def __init__(
        self,
        region: str,
        bucket: str,
        throughput_target_gbps: float = 10.0,
        part_size: int = 8 * MIB,
        user_agent_prefix: str = "",
        unsigned: bool = False,
        force_path_style: bool = False,
        max_attempts: int = 10,
    ) -> None:
        config = S3ClientConfig(throughput_target_gbps, part_size, unsigned, force_path_style, max_attempts)
        self._mock = MockS3Client(region, bucket, s3client_config=config)
        self._made = MountpointS3Client(
            region, user_agent_prefix, throughput_target_gbps, part_size, None, unsigned, None, force_path_style,
            max_attempts,
        )  # fmt: skip
        self._made._client = self._mock
        self.region = region
        self.throughput_target_gbps = throughput_target_gbps
        self.part_size = part_size
        self.user_agent_prefix = user_agent_prefix
        self.unsigned = unsigned
        self.force_path_style = force_path_style
        self.max_attempts = max_attempts

    def add_object(self, key: str, data: bytes) -> None:
        """Store an object in the bucket."""
        self._mock.add_object(key, data)

    def remove_object(self, key: str) -> None:
        """Delete an object of the bucket."""
        self._mock.remove_object(key)

    def create_mocked_client(self) -> MountpointS3Client:
        """Return the client."""
        return self._made


def join_all_managed_threads(timeout_secs: float) -> None:
    """Do nothing: this package has no threads that a fork could break."""
