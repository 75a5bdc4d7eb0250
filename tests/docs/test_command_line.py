"""docs/guide/command-line.md: its commands and options are those of ``s3torch``.

Each command, or group of commands, has a section of its name. There, every option is named, and no other.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from s3torchconnector._cli import _app, _connection
from tests.docs.pages import GUIDE

_PAGE = GUIDE["command-line"]
_ROOT: Any = typer.main.get_command(_app.make_app())  # of click, or of the click inside of typer
_COMMANDS: dict[str, Any] = _ROOT.commands
_SHARED = "Options of every command"
_OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


def _options(command: Any) -> set[str]:
    """All that a command has, or the commands of a group."""
    names = {
        name
        for each in command.params
        if each.param_type_name == "option"
        for name in (*each.opts, *each.secondary_opts)
    }
    return names.union(*map(_options, _subcommands(command).values()))


def _subcommands(command: Any) -> dict[str, Any]:
    return getattr(command, "commands", {})


def _of_connection() -> set[str]:
    """Those of every command."""
    return {name for name in _options(_COMMANDS["ls"]) if name[2:].replace("-", "_") in _fields()} | {"--help"}


def _fields() -> set[str]:
    return set(_connection.Connection.__dataclass_fields__)


def _documented(section: str) -> set[str]:
    """The options that a section names in code."""
    prose = re.sub(r"^```.*?^```$", "", _PAGE.section(section), flags=re.DOTALL | re.MULTILINE)
    code = " ".join(re.findall(r"`([^`]+)`", prose))
    return set(_OPTION.findall(code))


def _lines() -> Iterator[str]:
    """Each command of the blocks."""
    for block in _PAGE.blocks("sh"):
        for line in block.text.replace("\\\n", "").splitlines():
            yield from (part.strip() for part in line.split("|") if part.strip().startswith("s3torch"))


def test_each_command_has_a_section() -> None:
    assert sorted(_COMMANDS) == sorted(set(_PAGE.anchors_of(2)) & set(_COMMANDS))


@pytest.mark.parametrize("name", sorted(_COMMANDS))
def test_a_section_names_the_options_of_its_command(name: str) -> None:
    assert _documented(name) - _of_connection() == _options(_COMMANDS[name]) - _of_connection()


def test_the_options_of_every_command_are_named_once() -> None:
    assert len(_of_connection()) == len(_fields()) + 1
    assert _documented(_SHARED) - {"--json"} == _of_connection()


@pytest.mark.parametrize("line", sorted(set(_lines())))
def test_a_line_of_a_block_is_right_usage(line: str) -> None:
    """It is parsed, but not carried out."""
    command, arguments = _ROOT, shlex.split(line, comments=True)[1:]
    while _subcommands(command):
        command = command.commands[arguments.pop(0)]
    command.make_context("s3torch", arguments)


def test_wrong_usage_is_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        _COMMANDS["ls"].make_context("s3torch", ["--no-option", "s3://my-bucket"])
