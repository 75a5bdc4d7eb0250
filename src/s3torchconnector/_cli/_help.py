"""What ``--help`` of each command looks like."""

from __future__ import annotations

from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperOption


class Command(TyperCommand):
    """A command whose help names values as people do, ``--region REGION``, and not by their types in Python."""

    def __init__(self, *args: Any, help: str | None = None, **settings: Any) -> None:
        paragraphs = (help or "").split("\n\n")
        super().__init__(*args, help="\n\n".join(" ".join(each.split()) for each in paragraphs), **settings)

    def get_params(self, ctx: Any) -> Any:
        params = super().get_params(ctx)
        for param in params:
            if isinstance(param, TyperOption) and param.metavar is None:
                word = param.opts[0].rpartition("-")[2]
                param.metavar = "" if param.is_flag else word.upper()
            elif isinstance(param, TyperArgument):
                param.display_type_rich = _no_type  # type: ignore[method-assign]
        return params

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Arguments as their metavars say it: ``SOURCE... DESTINATION``."""
        arguments = (param for param in self.get_params(ctx) if isinstance(param, TyperArgument))
        return ["[OPTIONS]", *(param.metavar or str(param.name) for param in arguments)]


def _no_type(ctx: Any) -> None:
    """The type of an argument: its name says it."""
