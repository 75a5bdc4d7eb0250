"""docs/guide/getting-started.md: the first run without AWS goes as the page says.

The server's command has its own test (``tests/test_testing_server.py``).
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from s3torchconnector.testing import S3Server
from tests.cli.support import call
from tests.docs.pages import GUIDE, Block
from tests.servers.warm import WarmPython

_TITLE = "A first run, without AWS"
_PAGE = GUIDE["getting-started"]


def _blocks(language: str) -> list[Block]:
    return [block for block in _PAGE.blocks(language) if block.text in _PAGE.section(_TITLE)]


def _type(block: Block) -> str:
    """Run the lines of a terminal; return what ``s3torch`` shows."""
    shown = ""
    for line in block.text.splitlines():
        command, *arguments = shlex.split(line)
        if command != "s3torch":
            subprocess.run(line, shell=True, check=True)
            continue
        done = call(*arguments)
        assert done.returncode == 0, (line, done)
        shown += done.stdout
    return shown


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_it_is_killed_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], warm_python: WarmPython
) -> None:
    _, upload, look = _blocks("sh")
    (train,) = _blocks("python")
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(train.text)
    with S3Server() as server, server.exported():
        server.make_bucket("my-bucket")
        _type(upload)
        killed = warm_python.start("train.py")
        try:
            assert killed.stdout.readline() == "saved step 5 in epoch 0\n"
        finally:
            killed.kill()
            killed.communicate(60)
        assert "step" in _type(look)
        exec(train.text.replace("time.sleep(0.2)", "pass"), {"__name__": "__main__"})
    resuming, *saved, figures = capsys.readouterr().out.splitlines()
    after = int(resuming.removeprefix("resuming after step "))
    assert saved == [f"saved step {step} in epoch {int(step > 50)}" for step in range(after + 5, 101, 5)]
    assert " requests, " in figures
