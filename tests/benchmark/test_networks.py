"""The benchmark of the networks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Benchmark

pytest.importorskip("torchvision")


@pytest.mark.slow
def test_quick(benchmark: Benchmark, tmp_path: Path) -> None:
    """Writes a row for every network and task, and a plot."""
    result, picture = tmp_path / "networks.json", tmp_path / "networks.png"
    printed = benchmark("networks", "--quick", "--size", 64, "--json", result, "--plot", picture)
    assert "SAN10 patchwise" in printed
    rows = json.loads(result.read_text())["results"]
    for task, names in {
        "inference": {"SAN10 pairwise", "SAN10 pairwise, unfused", "SAN10 patchwise, plain torch", "ResNet-26"},
        "training step": {"SAN10 pairwise", "SAN10 pairwise, plain torch", "ResNet-26, channels last"},
    }.items():
        assert names <= {row["network"] for row in rows if row["task"] == task}
    assert all(row["median_s"] >= row["fastest_s"] > 0 and row["peak_bytes"] > 0 for row in rows)
    for task in ("inference", "training step"):
        resnets = [row for row in rows if row["task"] == task and row["network"].startswith("ResNet")]
        assert min(resnets, key=lambda row: row["median_s"])["ratio"] == 1
    assert picture.stat().st_size > 1000


def test_without_unfused(benchmark: Benchmark, tmp_path: Path) -> None:
    """Times only the default versions."""
    result = tmp_path / "networks.json"
    benchmark("networks", "--quick", "--size", 32, "--task", "inference", "--without-unfused", "--json", result)
    names = {row["network"] for row in json.loads(result.read_text())["results"]}
    assert names == {"SAN10 pairwise", "SAN10 patchwise", "ResNet-26", "ResNet-26, channels last"}
