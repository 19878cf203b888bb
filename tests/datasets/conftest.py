"""A small data set for tests that do not change it, and a fixture that starts the command line."""

import hashlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sa_layers.datasets import ShapesFolder, make_shapes

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> ShapesFolder:
    """A small data set. Tests must not change it."""
    return make_shapes(tmp_path_factory.mktemp("datasets") / "shapes", train=40, val=20, size=64, seed=3, crop_size=32)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``python -m sa_layers.datasets.shapes`` with arguments. Processes are killed at the end of the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "sa_layers.datasets.shapes", *map(str, arguments)]
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            # background jobs inherit that SIGINT is ignored
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def fingerprint() -> Callable[[Path], dict[str, str]]:
    """Digest every file of a folder, hidden files included."""

    def fingerprint(root: Path) -> dict[str, str]:
        files = sorted(path for path in Path(root).rglob("*") if path.is_file())
        return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return fingerprint
