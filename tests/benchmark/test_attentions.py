"""The benchmark of whole attentions, and the agreement check."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sa_layers.benchmark.agreement import check_agreement, precision_notes, without_tf32
from sa_layers.benchmark.attentions import ATTENTIONS, FROZEN, make_problem, measure, measure_training
from sa_layers.benchmark.errors import BenchmarkError
from sa_layers.benchmark.problems import STAGES
from sa_layers.ops.backend import decide

from .conftest import Benchmark

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ATTENTIONS)
def test_every_implementation_is_timed(name: str, dtype: torch.dtype) -> None:
    layer, operands = make_problem(name, STAGES[-1], 2, dtype, CPU)
    assert [operand.shape[1] for operand in operands] == [128, 128, 512]
    ours, unfused, plain = measure(layer, operands, seconds=0)
    assert [row["implementation"] for row in (ours, unfused, plain)] == ["sa_layers", "unfused", "plain torch"]
    assert ours["ratio"] == 1
    if decide(CPU) == "native":
        output = 2 * 512 * 49 * dtype.itemsize
        folded = 4 * sum(tensor.numel() for tensor in layer.mapping.state_dict().values())  # in float32
        assert output <= ours["peak_bytes"] <= output + folded
        assert unfused["peak_bytes"] > 5 * output


@pytest.mark.parametrize("frozen", FROZEN)
@pytest.mark.parametrize("name", ATTENTIONS)
def test_training_steps_are_timed_in_two_phases(name: str, frozen: str) -> None:
    layer, operands = make_problem(name, STAGES[-1], 2, torch.float32, CPU)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    rows = list(measure_training(layer, operands, frozen, seconds=0))
    assert [row["implementation"] for row in rows] == ["sa_layers", "unfused", "plain torch"]
    for row in rows:
        assert 0 < row["forward_s"] < row["median_s"]
        assert 0 < row["backward_s"] < row["median_s"]
        assert row["peak_bytes"] >= 2 * sum(operand.nbytes for operand in operands[1:])  # the output and the gradients
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_quick(benchmark: Benchmark, tmp_path: Path) -> None:
    result = tmp_path / "attentions.json"
    printed = benchmark("attentions", "--quick", "--json", result)
    rows = json.loads(result.read_text())["results"]
    assert {(row["attention"], row["stage"], row["task"], row.get("norms")) for row in rows} == {
        (name, "4: 512 x 7 x 7", *task)
        for name in ATTENTIONS
        for task in (
            ("inference", None),
            ("training step", "batch statistics"),
            ("training step", "frozen norms"),
        )
    }
    assert "pairwise, training step, frozen norms, 4: 512 x 7 x 7, batch 1" in printed


def test_one_task(benchmark: Benchmark, tmp_path: Path) -> None:
    result = tmp_path / "attentions.json"
    options = ("--quick", "--attention", "patchwise", "--json", result)
    printed = benchmark("attentions", *options, "--task", "inference")
    assert "backward" not in printed
    assert {row["task"] for row in json.loads(result.read_text())["results"]} == {"inference"}
    printed = benchmark("attentions", *options, "--task", "training step", "--frozen", "norms")
    assert "backward" in printed
    assert {row["norms"] for row in json.loads(result.read_text())["results"]} == {"frozen norms"}


def test_different_results_are_rejected() -> None:
    one = torch.ones(3)
    check_agreement("this", one + 1e-5, "that", one)
    for other in (one + 1e-3, one * float("nan")):
        with pytest.raises(BenchmarkError, match=r"this differs from that by .*; the largest absolute value is 1"):
            check_agreement("this", other, "that", one)


def test_results_are_compared_without_tf32() -> None:
    flags = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [flag.allow_tf32 for flag in flags]
    with without_tf32():
        assert not any(flag.allow_tf32 for flag in flags)
    with pytest.raises(SystemExit), without_tf32():
        raise SystemExit
    assert [flag.allow_tf32 for flag in flags] == before
    assert not list(precision_notes(CPU))
    assert "convolutions True, matrix products False" in next(precision_notes(torch.device("cuda")))
