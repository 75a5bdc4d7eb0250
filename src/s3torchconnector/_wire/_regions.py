"""The endpoints of a client's buckets, including buckets that turn out to be in another region than the client's.

S3 names the region of such a bucket when it refuses a request. All later requests to the bucket go there.
"""

from __future__ import annotations

import logging
from functools import partial

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3ConfigurationError, S3WrongRegionError
from s3torchconnector._identity import Endpoint, EndpointResolver
from s3torchconnector._uri import display_uri

_AWS = (".amazonaws.com", ".amazonaws.com.cn")
_R2 = ".r2.cloudflarestorage.com"
_log = logging.getLogger(__name__)


class Regions:
    """One resolver of endpoints for the client's region, and one for each bucket that is elsewhere. Thread-safe.

    Raises:
        S3ConfigurationError: the region or the endpoint is invalid.
    """

    def __init__(self, region: str, endpoint: str | None, config: S3ClientConfig) -> None:
        self._resolver_for = partial(EndpointResolver, endpoint=endpoint, config=config)
        self._usual = self._resolver_for(region)
        self._moved: dict[str, tuple[str, EndpointResolver]] = {}

    @property
    def encrypts(self) -> bool:
        """Whether requests go over TLS, as far as is known before the first one."""
        return self._usual.encrypts

    def endpoint(self, bucket: str) -> Endpoint:
        """The endpoint for requests to ``bucket``.

        Raises:
            S3ConfigurationError: there is none.
        """
        moved = self._moved.get(bucket)
        return (moved[1] if moved else self._usual).resolve(bucket)

    def is_aws(self, bucket: str) -> bool:
        """Whether the bucket is one of Amazon's."""
        return self._is_below(bucket, *_AWS)

    def is_r2(self, bucket: str) -> bool:
        """Whether the bucket is one of Cloudflare's."""
        return self._is_below(bucket, _R2)

    def _is_below(self, bucket: str, *domains: str) -> bool:
        try:
            return self.endpoint(bucket).host.endswith(domains)
        except S3ConfigurationError:
            return False  # a request will say so

    def follow(self, error: S3WrongRegionError, bucket: str) -> bool:
        """Send later requests for ``bucket`` to the region that S3 named; False if it named none."""
        if error.region and self._moved.get(bucket, ("", None))[0] != error.region:
            self._moved[bucket] = error.region, self._resolver_for(error.region)
            _log.info("%s is in region %s: its requests go there from now on", display_uri(bucket), error.region)
        return bool(error.region)
