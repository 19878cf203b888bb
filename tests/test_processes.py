"""The ``process`` marker is set on the tests that start processes, and on no other."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import RunPython


def start() -> int:
    """Starts a process."""
    return subprocess.run([sys.executable, "-S", "-c", ""], check=True).returncode


class Starter:
    """Starts one in a method."""

    def start(self) -> int:
        return start()


def is_marked(request: pytest.FixtureRequest) -> bool:
    return request.node.get_closest_marker("process") is not None


def test_fixture(request: pytest.FixtureRequest, run_python: RunPython) -> None:
    assert is_marked(request)


def test_function(request: pytest.FixtureRequest) -> None:
    assert is_marked(request)
    assert start() == 0


def test_method(request: pytest.FixtureRequest) -> None:
    assert is_marked(request)
    assert Starter().start() == 0


def test_nested_function(request: pytest.FixtureRequest) -> None:
    assert (lambda: start() == 0)()
    assert is_marked(request)


def test_no_process(request: pytest.FixtureRequest, repository: object) -> None:
    assert not is_marked(request)
