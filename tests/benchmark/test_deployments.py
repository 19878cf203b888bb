"""The benchmark of deployments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import nn

from sa_layers.benchmark import deployments, runtimes
from sa_layers.benchmark.__main__ import main
from sa_layers.export.custom_operators.runtimes import HEADER_PACKAGE, VARIABLE
from sa_layers.models import SelfAttentionClassifier

from .conftest import Benchmark

SMALL = {"depth": (1, 1), "widths": (32, 32), "kernel_sizes": (3, 3), "num_classes": 5}


def small_networks(depth: int, attentions: Sequence[str]) -> dict[str, nn.Module]:
    """A small network in the place of each of :func:`.candidates.make_networks`."""
    sans = {
        f"SAN{depth} {name}": SelfAttentionClassifier(attention=name, out_indices=(1,), **SMALL) for name in attentions
    }
    resnet = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    return {**sans, "ResNet-50": resnet}


@pytest.mark.slow
def test_quick(benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A row for every network and runtime, with ratios to the ResNet in the same runtime."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(deployments, "make_networks", small_networks)
    result, names = tmp_path / "deployments.json", ("eager", "channels-last", "onnxruntime")
    options = ("--quick", "--size", 32, "--batch", 2, "--attention", "patchwise", "--runtime", *names)
    benchmark("deployments", *options, "--json", result)
    content = json.loads(result.read_text())
    assert content["machine"]["threads"] == 1
    assert "onnxruntime" in content["machine"]
    rows = content["results"]
    headings = [runtimes.RUNTIMES[name].heading for name in names]
    assert [(row["network"], row["runtime"]) for row in rows] == [
        (network, heading) for network in ("SAN19 patchwise", "ResNet-50") for heading in headings
    ]
    for row in rows:
        assert 0 < row["lower_s"] <= row["median_s"] <= row["upper_s"]
        assert row["ratio"] == 1 or row["network"] != "ResNet-50"
        assert row["prepare_s"] > 0
    assert min(row["ratio_to_fastest"] for row in rows if row["network"] == "ResNet-50") == 1


def test_disagreement(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A runtime that returns something else is an error."""
    monkeypatch.setattr(deployments, "make_networks", small_networks)
    wrong = runtimes.Runtime("wrong", None, lambda model, image, folder: lambda image: model(image) + 1)
    monkeypatch.setitem(runtimes.RUNTIMES, "channels-last", wrong)
    options = ("--quick", "--device", "cpu", "--attention", "patchwise", "--runtime", "eager", "channels-last")
    assert main(["deployments", *options]) == 1
    assert "SAN19 patchwise in channels-last differs from SAN19 patchwise in eager by 1" in capsys.readouterr().err


def test_custom_operators_need_a_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without onnxruntime's header their row is left out, and the package that has it is named."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert runtimes.RUNTIMES["onnxruntime"].missing_package() is None
    assert runtimes.RUNTIMES["onnxruntime-custom"].missing_package() == HEADER_PACKAGE
    assert "onnxruntime-custom" not in deployments.chosen_runtimes(None)
