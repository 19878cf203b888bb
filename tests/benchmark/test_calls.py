"""The profile of a network by operator."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from sa_layers.benchmark.calls import measure
from sa_layers.benchmark.networks import TASKS

from .conftest import Benchmark

pytest.importorskip("torchvision")


def test_calls_are_summed_by_operator() -> None:
    one = torch.ones(3)
    rows = measure(lambda: (one.exp(), one.sin(), one.exp(), time.sleep(0.01)), runs=3)
    assert {row["operator"]: row["calls"] for row in rows} == {"aten.exp": 2, "aten.sin": 1, "all": 3}
    assert rows[-1]["fastest_s"] < 0.01  # the time between calls is excluded


@pytest.mark.parametrize("task", TASKS)
def test_quick(task: str, benchmark: Benchmark, tmp_path: Path) -> None:
    result = tmp_path / "calls.json"
    benchmark("calls", "--quick", "--depth", 10, "--task", task, "--json", result)
    rows = json.loads(result.read_text())["results"]
    assert ("aten.convolution_backward" in {row["operator"] for row in rows}) == (task == "training step")
    assert {row["network"] for row in rows} == {
        "SAN10 pairwise",
        "SAN10 patchwise",
        "ResNet-26",
        "ResNet-26, channels last",
    }
    for network in {row["network"] for row in rows}:
        *parts, everything = [row for row in rows if row["network"] == network]
        assert 0.5 < sum(row["share"] for row in parts) <= 1
        assert everything["operator"] == "all"


def test_frozen_parts_have_no_backward_pass(benchmark: Benchmark, tmp_path: Path) -> None:
    result = tmp_path / "calls.json"
    calls = {}
    for frozen in ("norms", "norms-and-stage1"):
        options = ("--depth", 10, "--task", "training step", "--frozen", frozen, "--json", result)
        benchmark("calls", "--quick", *options)
        for row in json.loads(result.read_text())["results"]:
            if row["operator"] == "all":
                calls[frozen, row["network"]] = row["calls"]
    for network in ("SAN10 pairwise", "SAN10 patchwise", "ResNet-26"):
        assert calls["norms-and-stage1", network] < calls["norms", network]
