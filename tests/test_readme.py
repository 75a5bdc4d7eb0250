"""README.md: its Python blocks run as they are printed, and its tables and names are those of the code.

Each block is a program of its own. What they take for granted is the fixture ``my_bucket``: the bucket ``my-bucket`` on
the test suite's S3 server, which the environment names, with the objects that the examples read.
"""

from __future__ import annotations

import ast
import dataclasses
import io
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import s3torchconnector
from s3torchconnector import S3Checkpoint, S3ClientConfig, _errors
from s3torchconnector.testing import S3Server

_ROOT = Path(__file__).parents[1]
_README = (_ROOT / "README.md").read_text(encoding="utf-8")
_UNITS = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def _blocks(language: str) -> list[tuple[int, str]]:
    """The README's blocks in one language: the number of the line before each, and its text."""
    found = re.finditer(rf"^```{language}\n(.*?)^```$", _README, re.DOTALL | re.MULTILINE)
    return [(_README.count("\n", 0, match.start(1)), match[1]) for match in found]


def _section(title: str) -> str:
    return _README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def _rows(section: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def _value(text: str) -> Any:
    """```8 MiB``` to 8388608, ```None``` to None."""
    number, _, unit = text.strip("`").partition(" ")
    return ast.literal_eval(number) * _UNITS[unit] if unit else ast.literal_eval(number)


@pytest.fixture(scope="module")
def my_bucket(s3_server: S3Server) -> None:
    """Made once: rclone takes a name again only when it has forgotten the folder. No block changes what others read."""
    s3_server.make_bucket("my-bucket")
    checkpoint = S3Checkpoint(s3_server.region)
    for number in range(6):
        with checkpoint.writer(f"s3://my-bucket/images/{number}.png") as writer:
            Image.new("L", (8, 8), number).save(writer, format="PNG")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writing:
        writing.writestr("hello.txt", "hello")
    with checkpoint.writer("s3://my-bucket/archive.zip") as writer:
        writer.write(archive.getvalue())


# What each block prints, or a part of it, by a word of its code.
_PRINTED = {
    "S3IterableDataset": "3 images of [",  # two workers, six images
    "def decode": "6 images, the first of (8, 8) pixels",
    "dcp.save": "loaded: True",
    "torch.save": "",
    "save_safetensors": "torch.Size([8])\ntorch.Size([100, 8])",
    "S3CheckpointManager": "2700 [1000, 2000, 2600, 2700]",
    "BoringModel": "s3://my-bucket/run-1/checkpoints/epoch=0-step=64.ckpt s3://my-bucket/run-1/checkpoints/last.ckpt",
    "zipfile": "['hello.txt'] in archive.zip",
    "S3ReaderConstructor": r"b'\x89PNG\r\n\x1a\n'",
    "numpy.save": "80128 bytes written",
    "S3ClientConfig": "b'\\x89PNG' read by S3ClientConfig(",
    "S3Client(": "('images/5.png', ",
    "S3Server": "",
    "except OSError": "None",
    "except FileNotFoundError": "True GetObject NoSuchKey Service error: The key does not exist",
}


@pytest.mark.usefixtures("my_bucket")
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")  # a checkpoint of one process
@pytest.mark.parametrize(
    ("line", "code"), [pytest.param(*block, id=f"line {block[0] + 1}") for block in _blocks("python")]
)
def test_a_block_runs_as_printed(line: int, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    [expected] = [text for mark, text in _PRINTED.items() if mark in code]  # a new block needs an entry there
    program = compile("\n" * line + code, "README.md", "exec")  # so that a traceback names the line
    exec(program, {"__name__": "__main__"})
    assert expected in capsys.readouterr().out


def test_each_public_class_has_an_example() -> None:
    code = "".join(text for _, text in _blocks("python"))
    classes = [name for name in s3torchconnector.__all__ if name.startswith("S3")]
    assert [name for name in [*classes, "S3Client", "S3Server"] if not re.search(rf"\b{name}\b", code)] == [
        "S3Writer"  # it has one without its name: S3Checkpoint.writer returns it
    ]


def test_the_table_lists_the_fields_of_the_configuration() -> None:
    rows = _rows(_section("Configuration"))
    documented = [(name.strip("`"), _value(default)) for name, default, *_ in rows]
    assert documented == [(field.name, field.default) for field in dataclasses.fields(S3ClientConfig)]
    assert all(meaning for *_, meaning in rows)


def test_the_first_keyword_only_field_is_named() -> None:
    first = next(field.name for field in dataclasses.fields(S3ClientConfig) if field.kw_only)
    assert f"those from `{first}` on are keyword-only" in " ".join(_section("Configuration").split())


def test_the_errors_are_the_tree_of_the_code() -> None:
    [(_, tree)] = _blocks("text")
    code = "\n".join(line.removeprefix("    ") for line in str(_errors.__doc__).splitlines())
    assert tree in code


def test_the_commands_are_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (_ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", _README))
    assert {"demo", "test"} <= named <= targets


def test_the_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", _README)
    files = [target for target in targets if not target.startswith(("#", "https://"))]
    assert [file for file in files if not os.path.exists(_ROOT / file)] == []
    titles = {
        re.sub(r"[^a-z0-9-]", "", title.lower().replace(" ", "-")) for title in re.findall("(?m)^##+ (.*)", _README)
    }
    assert [link for link in targets if link.startswith("#") and link[1:] not in titles] == []


def test_the_results_have_their_place() -> None:
    assert _section("Performance").count("<!-- figures:summary -->\n") == 1
    assert re.search(r"<!-- figures:summary -->.*<!-- /figures -->", _section("Performance"), re.DOTALL)
