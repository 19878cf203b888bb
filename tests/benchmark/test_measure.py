"""Interleaved timing, and the check that implementations agree."""

from __future__ import annotations

import time

import pytest
import torch

from sa_layers.benchmark.errors import BenchmarkError
from sa_layers.benchmark.measure import make_copy, time_interleaved, time_phases
from sa_layers.benchmark.operators import check_equal
from sa_layers.benchmark.problems import OURS, PROBLEMS, STAGES

CPU = torch.device("cpu")


def test_candidates_are_timed_in_alternation() -> None:
    turns: list[str] = []
    candidates = {name: lambda name=name: turns.append(name) for name in "ab"}
    timings = time_interleaved(candidates, CPU, seconds=0, min_rounds=3, min_seconds=0)
    assert "".join(turns) == "aabb" + "aabb" * 3
    assert all(timing.rounds == 3 and timing.fastest <= timing.median for timing in timings.values())


def test_fast_candidates_are_called_many_times() -> None:
    calls: list[None] = []
    candidates = {"one": lambda: calls.append(None)}
    timing = time_interleaved(candidates, CPU, seconds=0, min_rounds=1, min_seconds=1e-3)["one"]
    assert len(calls) > 100
    assert 0 < timing.fastest < 1e-4


def test_phases_are_timed_apart() -> None:
    calls: list[str] = []

    def forward() -> None:
        calls.append("forward")

    def backward() -> None:
        calls.append("backward")
        time.sleep(0.002)

    options = {"seconds": 0, "min_rounds": 3, "min_seconds": 0.005}
    forward_timing, backward_timing = time_phases({"step": (forward, backward)}, CPU, **options)["step"]
    assert calls[::2] == ["forward"] * (len(calls) // 2)
    assert calls[1::2] == ["backward"] * (len(calls) // 2)
    assert len(calls) > 2 * (2 + 3 * 2)  # more than one call a round
    assert forward_timing.rounds == backward_timing.rounds == 3
    assert forward_timing.fastest < 0.001 < 0.002 <= backward_timing.fastest


def test_copy_moves_the_given_number_of_bytes() -> None:
    target = make_copy(1000, CPU)()
    assert isinstance(target, torch.Tensor)
    assert target.nbytes == 500


def test_different_results_are_rejected() -> None:
    problem = PROBLEMS["aggregation"](STAGES[4], 1, torch.float32, CPU)
    right = problem.candidates[OURS](*problem.operands, problem.footprint)
    check_equal({OURS: lambda: right, "alike": lambda: right + 1e-7}, problem)
    with pytest.raises(BenchmarkError, match=r"aggregation, 1 x 512 x 7 x 7, .*: twice differs from sa_layers by"):
        check_equal({OURS: lambda: right, "twice": lambda: 2 * right}, problem)
    with pytest.raises(BenchmarkError, match="nothing differs"):
        check_equal({OURS: lambda: right, "nothing": lambda: right * torch.nan}, problem)
