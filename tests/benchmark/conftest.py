"""The command line of the benchmarks, in this process: starting one takes longer than most benchmarks here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest

Benchmark: TypeAlias = Callable[..., str]


@pytest.fixture
def benchmark(capsys: pytest.CaptureFixture[str]) -> Benchmark:
    """``python -m sa_layers.benchmark`` with some arguments, on one thread; returns what it prints."""
    pytest.importorskip("torchvision")
    from sa_layers.benchmark.__main__ import main

    def run(subcommand: str, *arguments: object) -> str:
        assert main([subcommand, "--threads", "1", *map(str, arguments)]) == 0
        return capsys.readouterr().out

    return run
