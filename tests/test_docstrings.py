"""The examples in docstrings run as they are printed, and every public class has one.

Each docstring is a program of its own. ``my-bucket`` stands for a bucket with three objects of 10 bytes below
``images/``, on the test suite's S3 server.
"""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

from s3torchconnector import S3Client, _dataset_parameters
from s3torchconnector.testing import S3Server
from tests.public_modules import modules, public_names

_CONTENTS = {f"images/{number}.png": b"\x89PNG" + b"%06d" % number for number in range(3)}
_OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def _examples() -> Iterator[doctest.DocTest]:
    """All docstrings of the package that have examples."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    for module in modules():
        for found in finder.find(module, module.__name__, module=module):
            if found.examples:
                yield found


def _public_classes() -> list[type]:
    classes = {each for module in modules() for each in public_names(module).values() if inspect.isclass(each)}
    return sorted(classes, key=lambda kind: kind.__qualname__)


@pytest.fixture
def my_bucket(bucket: str) -> str:
    with S3Client("us-east-1") as client:
        for key, content in _CONTENTS.items():
            stream = client.put_object(bucket, key)
            stream.write(content)
            stream.close()
    return bucket


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")  # a checkpoint of one process
@pytest.mark.parametrize("example", [pytest.param(each, id=each.name) for each in _examples()])
def test_an_example_runs_as_printed(example: doctest.DocTest, my_bucket: str) -> None:
    text = (example.docstring or "").replace("my-bucket", my_bucket)
    test = doctest.DocTestParser().get_doctest(text, {}, example.name, example.filename, example.lineno)
    said: list[str] = []
    doctest.DocTestRunner(verbose=False, optionflags=_OPTIONS).run(test, out=said.append)
    assert not said, "".join(said)


def test_every_public_class_has_an_example(s3_server: S3Server) -> None:
    without = [kind for kind in _public_classes() if not re.search(r"^ +>>> ", kind.__doc__ or "", re.MULTILINE)]
    # The classes of errors share the example of their root.
    assert [kind.__qualname__ for kind in without if not issubclass(kind, Exception)] == []


def _public_functions(kind: type) -> Iterator[tuple[str, Any]]:
    for name, member in vars(kind).items():
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if not name.startswith("_") and inspect.isfunction(function):
            yield name, function


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.__qualname__) for kind in _public_classes()])
def test_every_public_method_has_a_docstring(kind: type) -> None:
    assert [name for name, function in _public_functions(kind) if not function.__doc__] == []


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.__qualname__) for kind in _public_classes()])
def test_docstrings_of_datasets_describe_all_parameters(kind: type) -> None:
    documented = [kind, *(function for _, function in _public_functions(kind))]
    for each in documented:
        text = inspect.getdoc(each) or ""
        assert "_dataset_parameters" not in text
        if kind.__name__ in ("S3MapDataset", "S3IterableDataset") and "Args:" in text:
            parameters = set(inspect.signature(each).parameters) - {"self", "cls"}
            described = re.findall(r"^    (\w+): ", text, re.MULTILINE)
            assert parameters <= set(described), each
            assert len(described) == len(set(described)), each


def test_without_docstrings_nothing_is_described() -> None:
    def bare(region: str) -> None: ...

    assert _dataset_parameters.document(bare) is bare
    assert bare.__doc__ is None
