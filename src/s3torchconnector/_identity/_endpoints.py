"""Where requests go, by region, endpoint, settings and bucket: one cached ``Endpoint`` for each bucket.

Strategy: botocore's rules decide (``_endpoint_rules``), but importing botocore costs more than a first request to a
local server. So one case, the most frequent one outside AWS, is decided here: a plain bucket name at a custom endpoint
that has only path style. The result is the same as that of the rules, which a property test verifies.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._identity._endpoint_url import Endpoint, EndpointUrl, environment_endpoint, parse_endpoint
from s3torchconnector._late_imports import no_fork

if TYPE_CHECKING:
    from s3torchconnector._identity._endpoint_rules import EndpointRules

_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
_LONGEST_BUCKET = 255
# Directory buckets, their access points, Outposts, and the aliases of access points and of Object Lambda.
_MEANINGFUL_SUFFIXES = ("--x-s3", "--xa-s3", "--op-s3", "--ol-s3", "-s3alias")


class EndpointResolver:
    """Resolves buckets to endpoints; safe to share between threads.

    Args:
        region: the region of the buckets. ARNs bring their own.
        endpoint: a custom endpoint, with or without scheme (https), port and base path. ``None`` takes
            ``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``, the profile's ``endpoint_url``, or AWS's own, in
            this order.
        config: ``profile`` and ``force_path_style`` are used.

    Raises:
        S3ConfigurationError: the region or the endpoint is invalid.
    """

    def __init__(self, region: str, endpoint: str | None, config: S3ClientConfig) -> None:
        if not isinstance(region, str) or not region or not _PLAIN.issuperset(region):
            raise S3ConfigurationError(f"invalid configuration: region={region!r} is not a region like 'eu-west-1'")
        self._region = region
        self._config = config
        self._custom = parse_endpoint("endpoint", endpoint) if endpoint is not None else _from_environment()
        self._resolved: dict[str, Endpoint] = {}
        self._rules: EndpointRules | None = None
        self._lock = threading.Lock()

    @property
    def encrypts(self) -> bool:
        """Whether requests go over TLS, as far as is known without the profile's ``endpoint_url``."""
        return self._custom is None or self._custom.scheme == "https"

    def resolve(self, bucket: str) -> Endpoint:
        """Return where requests for a bucket name, access point ARN or alias go.

        Raises:
            S3ConfigurationError: there is no such endpoint, or the settings it depends on cannot be read.
        """
        found = self._resolved.get(bucket)
        if found is None:
            # Two threads may decide at the same time; both results are right.
            found = self._resolved[bucket] = self._decide(bucket)
        return found

    def _decide(self, bucket: str) -> Endpoint:
        if bucket in ("", ".", ".."):
            raise S3ConfigurationError(f"bucket={bucket!r} is not a bucket name")
        custom = self._custom
        if custom is not None and (custom.is_path_only or self._config.force_path_style) and _is_plain(bucket):
            return custom.with_bucket(bucket).endpoint(self._region)
        return self._rule_set().resolve(bucket)

    def _rule_set(self) -> EndpointRules:
        if self._rules is None:
            with no_fork:  # not under the lock: another thread may be importing it
                from s3torchconnector._identity._endpoint_rules import EndpointRules

            with self._lock:
                if self._rules is None:
                    self._rules = EndpointRules(self._region, self._custom, self._config)
        return self._rules


def _is_plain(bucket: str) -> bool:
    is_name = 0 < len(bucket) <= _LONGEST_BUCKET and _PLAIN.issuperset(bucket)
    return is_name and not bucket.endswith(_MEANINGFUL_SUFFIXES)


def _from_environment() -> EndpointUrl | None:
    """Return the endpoint of the environment, unless only botocore can decide whether it applies."""
    found = environment_endpoint(os.environ)
    return None if found is None or _may_be_ignored(os.environ) else found


def _may_be_ignored(environ: Mapping[str, str]) -> bool:
    if "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS" in environ:
        return True
    path = os.path.expanduser(environ.get("AWS_CONFIG_FILE", "~/.aws/config"))
    try:
        with open(path, "rb") as file:
            return b"ignore_configured_endpoint_urls" in file.read()
    except OSError:
        return False
