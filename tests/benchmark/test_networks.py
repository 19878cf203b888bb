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
    options = ("--quick", "--size", 64, "--frozen", "nothing", "--json", result, "--plot", picture)
    printed = benchmark("networks", *options)
    assert "SAN10 patchwise" in printed
    rows = json.loads(result.read_text())["results"]
    names = {"SAN10 pairwise", "SAN10 pairwise, unfused", "SAN10 patchwise, plain torch", "ResNet-26"}
    for task in ("inference", "training step"):
        of_task = [row for row in rows if row["task"] == task]
        assert names <= {row["network"] for row in of_task}
        resnets = [row for row in of_task if row["network"].startswith("ResNet")]
        assert min(resnets, key=lambda row: row["median_s"])["ratio"] == 1
    assert all(row["median_s"] >= row["fastest_s"] > 0 and row["peak_bytes"] > 0 for row in rows)
    assert picture.stat().st_size > 1000


@pytest.mark.slow
def test_training_steps(benchmark: Benchmark, tmp_path: Path) -> None:
    """Of what is trained, with and without autocast. test_quick takes steps with batch statistics."""
    result, picture = tmp_path / "networks.json", tmp_path / "networks.png"
    options = ("--quick", "--size", 64, "--attention", "patchwise", "--without-unfused", "--amp")
    frozen = ("--task", "training step", "--frozen", "norms", "norms-and-stage1")
    benchmark("networks", *options, *frozen, "--json", result, "--plot", picture)
    rows = json.loads(result.read_text())["results"]
    networks = ("SAN10 patchwise", "ResNet-26", "ResNet-26, channels last")
    assert [(row["norms"], row["network"]) for row in rows] == [
        (norms, f"{amp}{network}")
        for norms in ("frozen norms", "frozen norms and stage 1")
        for amp in ("", "AMP: ")
        for network in networks
    ]
    for row in rows:
        assert 0 < row["forward_s"] < row["median_s"]
        assert 0 < row["backward_s"] < row["median_s"]
        assert row["peak_bytes"] > 0
    by_name = {(row["norms"], row["network"]): row for row in rows}
    for network in networks:
        everything, less = (by_name[f"frozen norms{rest}", network] for rest in ("", " and stage 1"))
        assert less["peak_bytes"] < everything["peak_bytes"]
    for norms in {row["norms"] for row in rows}:
        assert min(row["ratio"] for row in rows if row["norms"] == norms and row["network"] in networks[1:]) == 1
    assert picture.stat().st_size > 1000
