"""Peak memory, interleaved timing, and the check that implementations agree."""

from __future__ import annotations

import pytest
import torch

from sa_layers.benchmark.errors import BenchmarkError
from sa_layers.benchmark.measure import make_copy, peak_memory, time_interleaved
from sa_layers.benchmark.operators import check_equal
from sa_layers.benchmark.problems import OURS, PROBLEMS, STAGES
from sa_layers.ops import aggregation

CPU = torch.device("cpu")


def test_peak_memory_counts_simultaneous_allocations() -> None:
    megabyte = 1_000_000
    block = torch.zeros(megabyte, dtype=torch.uint8)

    def one_after_the_other() -> None:
        for _ in range(3):
            block.clone()

    def all_at_once() -> list[torch.Tensor]:
        return [block.clone() for _ in range(3)]

    assert peak_memory(one_after_the_other, CPU) == megabyte
    assert peak_memory(all_at_once, CPU) == 3 * megabyte
    assert peak_memory(block.zero_, CPU) == 0


def test_peak_memory_includes_native_operators() -> None:
    value, weight = torch.randn(1, 64, 14, 14), torch.randn(1, 8, 9, 196)
    assert peak_memory(lambda: aggregation(value, weight, 3), CPU) >= value.nbytes


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
