"""Which keys are which files: nothing leaves the folder, and each path gives its key again."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s3torchconnector._cli._cp._names import NameRefusedError, key_of, path_of

_FOLDER = "/somewhere/below"
_PARTS = st.sampled_from(["", ".", "..", "a", "b ", "é", "\0", "\\", "C:", "\ud800", "x" * 256, "~", "-", "\n"])
_KEYS = st.one_of(st.text(), st.lists(st.one_of(_PARTS, st.text(max_size=3)), max_size=6).map("/".join))


@given(_KEYS)
@example("../a")
@example("/etc/passwd")
@example("a/../../b")
@example("a//b")
@example("a/")
@example("./a")
def test_a_key_is_a_file_below_the_folder_or_refused(key: str) -> None:
    try:
        path = path_of(_FOLDER, key, windows=False)
    except NameRefusedError:
        return
    assert os.path.normpath(path) == path
    relative = PurePosixPath(path).relative_to(_FOLDER)
    assert key_of(relative.parts) == key
    assert all(0 < len(os.fsencode(part)) <= 255 for part in relative.parts)


@given(st.lists(st.text(st.characters(blacklist_characters="/\0", codec="utf-8"), min_size=1, max_size=80), min_size=1))
def test_usual_names_are_taken(names: list[str]) -> None:
    if all(name not in (".", "..") and len(name.encode()) <= 255 for name in names):
        assert path_of(_FOLDER, "/".join(names), windows=False) == os.path.join(_FOLDER, *names)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "empty part"),
        ("/a", "empty part"),
        ("a//b", "empty part"),
        ("a/", "empty part"),
        ("..", "another folder"),
        ("a/../b", "another folder"),
        ("a/.", "another folder"),
        ("a\0b", "do not take"),
        ("a/" + "é" * 128, "256 bytes"),
        ("\ud800", "no such characters"),
    ],
)
def test_the_text_says_why_a_key_is_refused(key: str, reason: str) -> None:
    with pytest.raises(NameRefusedError, match=reason):
        path_of(_FOLDER, key, windows=False)


@pytest.mark.parametrize("name", ["a:b", "a\\b", "..\\a", "a.", "a ", "con", "NUL.txt", "com1", "a\tb", 'a"', "C:"])
def test_windows_refuses_more(name: str) -> None:
    assert path_of(_FOLDER, f"x/{name}", windows=False)
    with pytest.raises(NameRefusedError):
        path_of(_FOLDER, f"x/{name}", windows=True)
    assert path_of(_FOLDER, f"x/_{name.strip(' .')}_".translate({ord(c): "_" for c in ':\\"\t'}), windows=True)


def test_a_name_that_is_no_text_is_no_key() -> None:
    with pytest.raises(NameRefusedError, match="not valid UTF-8"):
        key_of(["a", os.fsdecode(b"\xff")])
