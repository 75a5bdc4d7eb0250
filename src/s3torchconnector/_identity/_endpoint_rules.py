"""The endpoint rules of AWS, from botocore, and the settings on which they depend. Imports botocore.

Strategy: botocore's rule set (``endpoint-rule-set-1`` of S3, with ``partitions``) decides; its session reads the
settings from the places where every AWS tool reads them. No client is built, which would cost several times as much.
The base path of a custom endpoint is hidden from the rules, which would encode it a second time, and added afterwards.

Two choices differ from a client of botocore: us-east-1 has its regional endpoint (the global one is a legacy of 2006),
and a custom endpoint is virtual-hosted unless configured otherwise, as in the rules and the native connectors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from botocore.endpoint_provider import EndpointProvider
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._errors import S3ConfigurationError
from s3torchconnector._identity._endpoint_url import Endpoint, EndpointUrl, environment_endpoint, parse_endpoint

_RULE_SET = "endpoint-rule-set-1"
_SCHEMES = ("sigv4", "sigv4-s3express")  # preferred: access points on Outposts take these and SigV4A
_ASYMMETRIC = "sigv4a"


class EndpointRules:
    """The rules for one region and one set of settings; safe to share between threads.

    Args:
        region: the region as the user gave it.
        custom: the custom endpoint, if it is known; otherwise the configured one is looked up.
        config: ``profile`` and ``force_path_style`` are used.

    Raises:
        S3ConfigurationError: the settings cannot be read, or a configured endpoint is invalid.
    """

    def __init__(self, region: str, custom: EndpointUrl | None, config: S3ClientConfig) -> None:
        self._region = region
        try:
            session = Session(profile=config.profile, include_builtin_handlers=False)  # they are for clients
            self._provider = _load(session)
            self._custom = custom or _configured_endpoint(session)
            self._params = self._parameters(session, config)
        except BotoCoreError as error:
            raise S3ConfigurationError(
                f"the AWS settings cannot be read: {error}. Check the profile and the AWS configuration files"
            ) from error

    def resolve(self, bucket: str) -> Endpoint:
        """Return the endpoint of a bucket, access point ARN or alias.

        Raises:
            S3ConfigurationError: the rules have none, or its requests need a signature that is not supported.
        """
        params = {**self._params, "Bucket": bucket}
        if bucket.startswith("arn:"):
            params["ForcePathStyle"] = False  # ARNs have no path style; the setting is for the other buckets
        try:
            found = self._provider.resolve_endpoint(**params)
        except (BotoCoreError, UnicodeEncodeError) as error:
            raise S3ConfigurationError(
                f"there is no endpoint for bucket {bucket!r} in region {self._region!r}: {error}"
            ) from error
        scheme = _supported_scheme(bucket, found.properties)
        name, service = scheme["name"], scheme.get("signingName", "s3")
        asymmetric = name == _ASYMMETRIC
        region = ",".join(scheme["signingRegionSet"]) if asymmetric else scheme.get("signingRegion", self._region)
        return self._address(bucket, found.url).endpoint(region, service, name == "sigv4-s3express", asymmetric)

    def _address(self, bucket: str, url: str) -> EndpointUrl:
        custom = self._custom
        if custom is not None and custom.is_path_only and urlsplit(url).netloc.startswith(f"{bucket}."):
            # The rules do this only for IP addresses, and not for bucket names with dots.
            return custom.with_bucket(bucket)
        try:
            address = parse_endpoint("endpoint", url)
        except S3ConfigurationError as error:  # the rules take any Unicode digit for a part of a host name
            raise S3ConfigurationError(f"bucket={bucket!r} is not a bucket name: {error}") from error
        if custom is None or not address.host.endswith(custom.host):  # as for Multi-Region Access Points
            return address
        if custom.is_address and address.host != custom.host:
            raise S3ConfigurationError(
                f"there is no endpoint for {bucket!r} at {custom.authority}: the name of the access point is put "
                "before the host, which therefore cannot be an IP address. Use a host name as the endpoint, or the "
                "name of the bucket"
            )
        return address._replace(path=custom.path + address.path)

    def _parameters(self, session: Session, config: S3ClientConfig) -> dict[str, Any]:
        settings = session.get_config_variable("s3") or {}
        custom = self._custom
        params: dict[str, Any] = {
            "Region": self._region,
            "Accelerate": bool(settings.get("use_accelerate_endpoint")),
            "ForcePathStyle": config.force_path_style or settings.get("addressing_style") == "path",
            "UseArnRegion": bool(settings.get("use_arn_region", True)),
            "DisableMultiRegionAccessPoints": bool(settings.get("s3_disable_multiregion_access_points")),
            "DisableS3ExpressSessionAuth": _without_session_auth(session),
        }
        if custom is not None:
            params["Endpoint"] = f"{custom.scheme}://{custom.authority}"
        else:
            # A custom endpoint has no variants: botocore omits these two for one.
            params["UseFIPS"] = bool(session.get_config_variable("use_fips_endpoint"))
            dual_stack = session.get_config_variable("use_dualstack_endpoint")
            params["UseDualStack"] = bool(settings.get("use_dualstack_endpoint") or dual_stack)
        return params


def _configured_endpoint(session: Session) -> EndpointUrl | None:
    """Return the endpoint of the environment, or else of the profile ("Service-specific endpoints", AWS SDKs
    and Tools reference guide)."""
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return None
    found = environment_endpoint(os.environ)
    if found is not None:
        return found
    profile = session.get_scoped_config()
    text = profile.get("endpoint_url")
    if "services" in profile:
        section = session.full_config.get("services", {}).get(profile["services"])
        if section is None:
            raise S3ConfigurationError(
                f"the profile has services={profile['services']!r}, but the AWS config file has no [services "
                f"{profile['services']}] section: add it, or remove the setting"
            )
        text = section.get("s3", {}).get("endpoint_url") or text
    return parse_endpoint("endpoint_url", text) if text else None


def _without_session_auth(session: Session) -> bool:
    # Versions of botocore without this setting return None.
    return str(session.get_config_variable("s3_disable_express_session_auth")).lower() == "true"


def _load(session: Session) -> EndpointProvider:
    loader = session.get_component("data_loader")
    # Not load_service_model(), which lists the folders of all services first: 100 ms.
    version = loader.determine_latest_version("s3", _RULE_SET)
    return EndpointProvider(loader.load_data(f"s3/{version}/{_RULE_SET}"), loader.load_data("partitions"))


def _supported_scheme(bucket: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    schemes: list[dict[str, Any]] = properties.get("authSchemes") or [{"name": "sigv4"}]
    for names in (_SCHEMES, (_ASYMMETRIC,)):
        for scheme in schemes:
            if scheme["name"] in names:
                return scheme
    unsupported = ", ".join([scheme["name"] for scheme in schemes])
    raise S3ConfigurationError(f"requests for {bucket!r} have to be signed with {unsupported}, which is not supported")
