"""Trusted certificates: those of the authorities that the environment or a profile names, as for botocore."""

import os
from pathlib import Path
from typing import NamedTuple

from s3torchconnector._late_imports import no_fork


class Bundle(NamedTuple):
    """A file of PEM certificates, and what named it."""

    path: str
    source: str


def ca_bundle(profile: str | None) -> Bundle | None:
    """The bundle to trust instead of the system's: AWS_CA_BUNDLE, the profile's ``ca_bundle``, REQUESTS_CA_BUNDLE."""
    if path := os.environ.get("AWS_CA_BUNDLE"):
        return Bundle(path, "AWS_CA_BUNDLE")
    if path := _of_profile(profile):
        return Bundle(path, "the profile's ca_bundle")
    if path := os.environ.get("REQUESTS_CA_BUNDLE"):
        return Bundle(path, "REQUESTS_CA_BUNDLE")
    return None


def _of_profile(profile: str | None) -> str | None:
    file = Path(os.environ.get("AWS_CONFIG_FILE", "~/.aws/config")).expanduser()
    try:
        if b"ca_bundle" not in file.read_bytes():  # as nearly always: botocore need not be imported
            return None
    except OSError:
        return None
    with no_fork:
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session
    try:
        path = Session(profile=profile).get_scoped_config().get("ca_bundle")
    except BotoCoreError:
        return None  # there is no such profile, as the look-up of credentials will say
    return os.path.expanduser(path) if isinstance(path, str) and path else None
