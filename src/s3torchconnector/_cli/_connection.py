"""The options of every command that say how S3 is reached, and the client that they make."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from s3torchconnector._config import S3ClientConfig
from s3torchconnector._s3client import S3Client

_PANEL = "Connection"
_DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True)
class Connection:
    """How S3 is reached. Every field is an option of the commands that ``connects`` decorates."""

    region: Annotated[
        str | None,
        typer.Option(help="Region of the bucket; by default $AWS_REGION, or us-east-1.", rich_help_panel=_PANEL),
    ] = None
    endpoint_url: Annotated[
        str | None, typer.Option(help="URL of an S3 server other than AWS's.", rich_help_panel=_PANEL)
    ] = None
    profile: Annotated[
        str | None, typer.Option(help="Profile of the shared AWS configuration files.", rich_help_panel=_PANEL)
    ] = None
    no_sign_request: Annotated[
        bool, typer.Option("--no-sign-request", help="Send no signature (public buckets).", rich_help_panel=_PANEL)
    ] = False
    path_style: Annotated[
        bool, typer.Option("--path-style", help="Put the bucket into the path of URLs.", rich_help_panel=_PANEL)
    ] = False

    def config(self, **settings: Any) -> S3ClientConfig:
        """The configuration that the options ask for.

        Args:
            settings: further fields of ``S3ClientConfig``.
        """
        config = S3ClientConfig(unsigned=self.no_sign_request, profile=self.profile, force_path_style=self.path_style)
        return replace(config, **settings)

    def client(self, **settings: Any) -> S3Client:
        """A client. The caller closes it."""
        return S3Client(self.region_name, endpoint=self.endpoint_url, s3client_config=self.config(**settings))

    @contextlib.contextmanager
    def opened(self, **settings: Any) -> Iterator[S3Client]:
        """A client for a ``with`` block. Ctrl-C ends the block without waiting for what is under way."""
        client = self.client(**settings)
        try:
            yield client
        except Exception:
            client.close()
            raise
        client.close()

    @property
    def region_name(self) -> str:
        """The region that the option, or else the environment names."""
        named = self.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        return named or _DEFAULT_REGION


def connects(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's keyword parameter ``connection`` by the options of ``Connection``."""
    options = get_type_hints(Connection, include_extras=True)
    # Not of ``get_type_hints``: before Python 3.11, it loses the options of a parameter whose default is None.
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    own = [p for p in parameters if p.name != "connection"]
    added = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=options[f.name])
        for f in fields(Connection)
    ]

    @wraps(command)
    def with_options(*args: Any, **kwargs: Any) -> None:
        connection = Connection(**{f.name: kwargs.pop(f.name) for f in fields(Connection)})
        command(*args, connection=connection, **kwargs)

    with_options.__annotations__ = {p.name: p.annotation for p in own + added}
    with_options.__signature__ = inspect.Signature(own + added)  # type: ignore[attr-defined]
    return with_options
