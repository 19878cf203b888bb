"""How commands report failures, and the types of their arguments."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sa_layers.command_line import TRACEBACK, command, image_size, integer, integers, number
from sa_layers.errors import ReportedError
from tests.conftest import clean_environment


class WrongArgumentError(ReportedError, ValueError):
    exit_status = 2


def failing(error: BaseException) -> Callable[[], int]:
    @command("datasets")
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ReportedError("a is missing"), 1, "error: a is missing."),
        (WrongArgumentError("b must be 1 or 2, got 3\nand more"), 2, "error: b must be 1 or 2, got 3."),
        (OSError(errno.ENOSPC, "No space left on device", "c.json"), 1, "error: c.json: No space left on device."),
        (OSError("the server does not answer."), 1, "error: the server does not answer."),
        (ModuleNotFoundError("No module named 'cv2'", name="cv2"), 1, "pip install 'sa-layers[datasets]'."),
        (
            ImportError("libGL.so.1: cannot open", name="cv2"),
            1,
            "error: cv2 cannot be imported (libGL.so.1: cannot open",
        ),
        (MemoryError(), 1, "error: there is not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "error: there is not enough memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BrokenPipeError(), 141, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_expected_errors(error: BaseException, status: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, and the exit status of the error."""
    assert failing(error)() == status
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == bool(message)


@pytest.mark.parametrize(
    "error",
    [KeyError("depth"), RuntimeError("shapes differ"), ModuleNotFoundError("No module 'a'", name="sa_layers.a")],
)
def test_bugs_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        failing(error)()


def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRACEBACK, "1")
    with pytest.raises(ReportedError):
        failing(ReportedError("a is missing"))()


@pytest.mark.parametrize(
    ("parse", "accepted", "refused"),
    [
        (integer(1), {"1": 1, "70000": 70000}, ["0", "-1", "1.5", "", "one", "nan"]),
        (integer(0, 4), {"0": 0, "4": 4}, ["5", "-1"]),
        (integers(1, 9), {"3": (3,), "3,7,7": (3, 7, 7)}, ["", "3,", "3;7", "0,1", "10"]),
        (integers(1, counts=(1, 2)), {"3": (3,), "3,7": (3, 7)}, ["1,2,3"]),
        (number(0), {"0": 0.0, "2.5": 2.5}, ["-1", "nan", "inf", "", "two"]),
        (image_size(1, 99), {"1x99": (1, 99)}, ["1", "1x", "0x1", "1x100", "1x2x3", "axb", ""]),
    ],
)
def test_types(parse: Callable[[str], Any], accepted: dict[str, Any], refused: list[str]) -> None:
    assert {text: parse(text) for text in accepted} == accepted
    for text in refused:
        with pytest.raises(argparse.ArgumentTypeError, match=r"^must be .*, got '"):
            parse(text)


PROGRAMS = {
    "short": "print('line')",
    "long": "print('line\\n' * 20000)",
    "flushed": "for _ in range(20000): print('a longer line', flush=True)",
    "help": "import argparse; argparse.ArgumentParser(description='What it does.').parse_args(['--help'])",
}
ENVIRONMENT = clean_environment(PYTHONUNBUFFERED="")
MAIN = """
import sys
from sa_layers.command_line import command

@command()
def main():
    {}
    return 0

sys.exit(main())
"""


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_broken_pipe(program: str) -> None:
    """Nothing on standard error if nobody reads the output."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", MAIN.format(program)], stdout=writer, stderr=subprocess.PIPE, env=ENVIRONMENT
    )
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("program", [PROGRAMS["short"], PROGRAMS["long"]], ids=["short", "long"])
def test_full_output(program: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", MAIN.format(program)], stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT
        )
    assert done.stderr == b"error: cannot write the output: No space left on device.\n"
    assert done.returncode == 1
