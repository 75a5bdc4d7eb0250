"""README.md and docs/guide: their tables, trees and lists are those of the code."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import importlib
import json
import re
from typing import Any

import s3torchconnector
from s3torchconnector import S3ClientConfig, S3ReaderConstructor, dcp, errors
from tests.docs.pages import GUIDE, README, ROOT

_UNITS = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_CONFIGURATION, _ERRORS, _CHECKPOINTS = GUIDE["configuration"], GUIDE["errors"], GUIDE["checkpoints"]
_START, _DATASETS = GUIDE["getting-started"], GUIDE["datasets"]
_SOURCES = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "src").rglob("*.py")))


def _value(text: str) -> Any:
    """```8 MiB``` to 8388608, ```None``` to None."""
    number, _, unit = text.strip("`").partition(" ")
    return ast.literal_eval(number) * _UNITS[unit] if unit else ast.literal_eval(number)


def _names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# -- README -----------------------------------------------------------------------------------------------------------


def test_the_readme_is_short() -> None:
    assert len(README.text.splitlines()) <= 130


def test_the_classes_are_where_the_readme_says() -> None:
    for name in (name for _, cell, _ in README.rows("Which class when") for name in _names(cell)):
        *folders, last = name.split(".")
        module = importlib.import_module(".".join(["s3torchconnector", *folders]))
        assert hasattr(module, last), name
        assert last in [*module.__all__, "errors"], name


def test_each_public_name_is_in_the_text_of_a_page() -> None:
    guide = "".join(page.prose for page in [README, *GUIDE.values()])
    public = [*s3torchconnector.__all__, *dcp.__all__, *errors.__all__]
    assert [name for name in public if name != "__version__" and f"`{name}" not in guide] == []


def test_the_commands_are_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {name for page in [README, *GUIDE.values()] for name in re.findall(r"`make ([a-z-]+)", page.text)}
    assert {"demo", "test"} <= named <= targets


def test_the_results_have_their_place() -> None:
    assert README.text.count("<!-- figures:summary -->\n") == 1
    assert re.search(r"<!-- figures:summary -->.*?<!-- /figures -->", README.text, re.DOTALL)


# -- getting started ---------------------------------------------------------------------------------------------------


def test_the_extras_match_the_package() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = project.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    documented = {name for cell, _ in _START.rows("Install") for name in _names(cell)}
    assert documented == set(re.findall(r"^(\w+) = \[", extras, re.MULTILINE)) - {"dev"}
    [python] = re.findall(r'^requires-python = ">=(.*)"', project, re.MULTILINE)
    [torch] = re.findall(r'^    "torch>=(.*)",', project, re.MULTILINE)
    assert f"Python {python} or newer, and PyTorch {torch} or newer" in " ".join(_START.section("Install").split())


# The action that S3 wants for each operation, where it has another name.
_ACTIONS = {
    "CompleteMultipartUpload": ["s3:PutObject"],
    "CopyObject": ["s3:GetObject", "s3:PutObject"],
    "CreateMultipartUpload": ["s3:PutObject"],
    "DeleteObjects": ["s3:DeleteObject"],
    "GetObjectTagging": ["s3:GetObjectTagging", "s3:PutObjectTagging"],
    "UploadPartCopy": ["s3:GetObject", "s3:PutObject"],
    "CreateSession": ["s3express:CreateSession"],
    "HeadObject": ["s3:GetObject"],
    "ListMultipartUploads": ["s3:ListBucketMultipartUploads"],
    "ListObjectsV2": ["s3:ListBucket"],
    "UploadPart": ["s3:PutObject"],
}


def test_the_policy_allows_the_requests() -> None:
    [block] = _START.blocks("json")
    statements = json.loads(block.text)["Statement"]
    allowed = {action for statement in statements for action in statement["Action"]}
    operations = set(re.findall(r'Request\(\s*"(\w+)"', _SOURCES))
    assert {"GetObject", "UploadPart", "ListObjectsV2"} <= operations
    needed = {action for each in operations for action in _ACTIONS.get(each, [f"s3:{each}"])}
    assert allowed | {"s3express:CreateSession", "s3:CreateBucket"} == needed
    assert "`s3express:CreateSession`" in _START.section("Permissions")
    ids = {statement["Sid"] for statement in statements}
    named = {name for _, cell in _START.rows("Permissions") for name in _names(cell)}
    assert {name for name in named if name[:1].isupper() and name[:2] != "S3"} == ids


def test_the_variables_for_proxies_and_cas_are_read() -> None:
    names = [name for cell, _ in _START.rows("Proxies and private CAs") for name in _names(cell)]
    assert "AWS_CA_BUNDLE" in names
    assert [name for name in names if name not in _SOURCES and not name.endswith("_PROXY")] == []


# -- datasets, checkpoints ---------------------------------------------------------------------------------------------


def test_the_ways_of_reading_match_the_code() -> None:
    documented = [name for cell, _ in _DATASETS.rows("How readers fetch: S3ReaderConstructor") for name in _names(cell)]
    methods = [name for name, each in vars(S3ReaderConstructor).items() if isinstance(each, staticmethod)]
    assert {name.partition("(")[0] for name in documented} == set(methods) - {"get_reader_type_string"}


def test_the_prefixes_are_what_the_strategies_make() -> None:
    rows = [row for row in _CHECKPOINTS.rows("Distributed: torch.distributed.checkpoint") if len(row) == 2]
    assert len(rows) == 6
    for strategy, prefix in rows:
        assert eval(strategy.strip("`"), vars(dcp).copy())(26) == prefix.strip("`")
    assert {name for name in dcp.__all__ if name.endswith("Strategy")} == {
        row[0].strip("`").split("(")[0] for row in rows
    }


# -- configuration -----------------------------------------------------------------------------------------------------


def test_the_table_lists_the_fields_of_the_configuration() -> None:
    rows = _CONFIGURATION.rows("Settings")
    documented = [(name.strip("`"), _value(default)) for name, default, *_ in rows]
    assert documented == [(field.name, field.default) for field in dataclasses.fields(S3ClientConfig)]
    assert all(meaning for *_, meaning in rows)


def test_the_first_keyword_only_field_is_named() -> None:
    first = next(field.name for field in dataclasses.fields(S3ClientConfig) if field.kw_only)
    assert f"The fields from `{first}` on are keyword-only" in " ".join(_CONFIGURATION.section("Settings").split())


# -- errors ------------------------------------------------------------------------------------------------------------


def test_the_errors_are_the_tree_of_the_code() -> None:
    [tree] = _ERRORS.blocks("text")
    code = "\n".join(line.removeprefix("    ") for line in str(errors.__doc__).splitlines())
    assert tree.text in code
    above: list[type] = []
    for line in tree.text.splitlines():
        mark = re.match(r"^([ │├└─]*)(\w+)(?: \((\w+)\))?", line)
        assert mark is not None
        kind, depth = getattr(errors, mark[2]), len(mark[1]) // 4
        expected = [*above[depth - 1 : depth], *([getattr(builtins, mark[3])] if mark[3] else [])]
        assert list(kind.__bases__) == (expected or [Exception])
        above[depth:] = [kind]
    assert sorted(re.findall(r"\bS3\w+", tree.text.replace("S3's", ""))) == errors.__all__


def test_each_error_has_advice() -> None:
    rows = _ERRORS.rows("What to do")
    assert sorted(cell.strip("`") for cell, *_ in rows) == errors.__all__
    assert all(advice for _, advice, _ in rows)


def test_the_attributes_of_errors_match_the_code() -> None:
    documented = [name for cell, _ in _ERRORS.rows("What each carries") for name in _names(cell)]
    assert documented == list(errors.S3Exception.__annotations__)
    text = _ERRORS.section("What each carries")
    for kind in (errors.S3WrongRegionError, errors.S3ChecksumError):
        assert all(f"`{name}`" in text for name in kind.__annotations__)


def test_the_errors_that_are_an_oserror_are_named() -> None:
    kinds = [name for name in errors.__all__ if issubclass(getattr(errors, name), OSError)]
    assert len(kinds) == 5
    text = " ".join(_ERRORS.section("except OSError").split())
    assert "(connection, timeout, not found, access denied, exists)" in text


# -- troubleshooting ---------------------------------------------------------------------------------------------------


def test_the_messages_to_look_for_match_the_code() -> None:
    quoted = re.findall(r'\*\*"([^"]+)"\*\*', GUIDE["troubleshooting"].prose)
    assert len(quoted) >= 3
    assert [text for text in quoted if text not in _SOURCES] == []
