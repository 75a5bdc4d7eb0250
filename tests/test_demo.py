"""``make demo``: what the script shows, with a terminal and without, and how it ends."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from examples import train_digits

_SCRIPT = Path(train_digits.__file__)
# Warnings are errors in the script and in the processes that it starts.
_STRICT = {**os.environ, "PYTHONWARNINGS": "error"}


def _on_a_terminal(*command: str | Path) -> tuple[int, str]:
    """Run a command on a terminal of its own; return its exit code and all that it showed."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))  # a new terminal is too narrow for a bar
    with open(master, "rb", buffering=0) as screen:
        with open(slave, "wb", buffering=0) as terminal:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, env=_STRICT)
        with process:
            shown = b"".join(iter(lambda: _read(screen.fileno()), b""))
        return process.returncode, shown.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # EIO: no process has the terminal open any more
        return b""


def test_it_survives_being_killed_and_learns_the_digits() -> None:
    exit_code, shown = _on_a_terminal(sys.executable, _SCRIPT)
    assert exit_code == 0, shown
    for expected in (
        r"uploading: +\d+%\|.*/1797 ",  # a progress bar
        r"uploaded 1,797 images",
        r"epoch 2/4: accuracy .* saved s3://digits/checkpoints/epoch-002-image-01437\.pt",
        r"epoch 3/4: +5\d%\|.*/1437 ",  # the bar of the epoch that was not finished
        r"killed by SIGKILL in the middle of epoch 3",
        r"resuming from s3://digits/checkpoints/epoch-003-image-00736\.pt",
        r"epoch 4/4: accuracy .* saved s3://digits/checkpoints/epoch-004-image-01437\.pt",
        r"epoch 3: 736 images before the kill and 701 after it; read again: 0, left out: 0",
        r"objects/s, .* [\d,]+ ",
        r"MB/s .* \d+\.\d+ ",
        r"accuracy on held-out images .* (9[5-9]\.\d|100\.0)% ",
        r"seconds a checkpoint .* \d+\.\d+ ",
    ):
        assert re.search(expected, shown), (expected, shown)
    assert "Warning" not in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("second", [["1 a"], ["1 a", "1 b", "1 c"]])
def test_an_image_that_is_left_out_or_comes_twice_is_a_failure(
    second: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    train_digits.compare(1, 3, ["1 c"], ["1 a", "1 b", "2 a", "2 b", "2 c"])
    assert "1 images before the kill and 2 after it; read again: 0, left out: 0" in capfd.readouterr().out
    with pytest.raises(RuntimeError, match="exactly once"):
        train_digits.compare(1, 3, ["1 c"], second)


def test_a_model_that_did_not_learn_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def learn_little(epochs: int, workers: int) -> None:
        train_digits.save_metrics(epochs, images=1, seconds=1.0, accuracy=0.9499, checkpoint_seconds=0.1)

    monkeypatch.setattr(train_digits, "train_through_a_crash", learn_little)
    assert train_digits.demo(epochs=1, workers=0) == 1
    out, err = capfd.readouterr()
    assert "train for more epochs" in out
    assert "\r" not in out + err  # without a terminal, no bar
    assert err == ""


@pytest.mark.parametrize("option", ["--epochs=0", "--workers=-1"])
def test_arguments_out_of_range_are_refused(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train_digits.py", option])
    with pytest.raises(SystemExit, match="2"):
        train_digits.parse_options()
