"""The benchmark of the operators, as a program and in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Benchmark

pytest.importorskip("rich")
pytest.importorskip("matplotlib")

MODULE = ("-m", "sa_layers.benchmark", "operators", "--device", "cpu", "--quick")


def test_operators_writes_table_json_and_plot(run_python: Callable, tmp_path: Path) -> None:
    json_file, picture = tmp_path / "results" / "operators.json", tmp_path / "roofline.png"
    printed = run_python(None, *MODULE, "--threads", 1, "--json", json_file, "--plot", picture, COLUMNS="200").stdout
    for words in ("unfold, multiply, sum", "unfold, einsum", "shift loop, addcmul_", "Numba reference", "of copy"):
        assert words in printed
    content = json.loads(json_file.read_text())
    assert content["machine"]["threads"] == 1
    assert content["machine"]["dtype"] == "float32"
    rows = content["results"]
    assert {row["operator"].split(",")[0] for row in rows} == {
        "aggregation",
        "softmax_aggregation",
        "pairwise_relation",
    }
    assert {row["task"] for row in rows} == {"forward", "forward and backward"}
    for row in rows:
        assert 0 < row["fastest_s"] <= row["median_s"]
        assert row["flops_per_s"] == pytest.approx(row["flops"] / row["median_s"])
        assert row["ratio"] == 1 or row["implementation"] != "sa_layers"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_operators_with_bfloat16_and_two_batch_sizes(benchmark: Benchmark, tmp_path: Path) -> None:
    options = ("--operator", "aggregation", "--dtype", "bfloat16", "--batch", 1, 2, "--json", tmp_path / "results.json")
    benchmark(*MODULE[2:], *options)
    rows = json.loads((tmp_path / "results.json").read_text())["results"]
    assert {row["shape"].partition(",")[0] for row in rows} == {"1 x 512 x 7 x 7", "2 x 512 x 7 x 7"}


def test_without_rich_the_tables_are_markdown(benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rich", "rich.console"):
        monkeypatch.setitem(sys.modules, name, None)
    printed = benchmark(*MODULE[2:], "--operator", "pairwise_relation")
    assert "| implementation | median | ratio | peak memory | speed | of copy |" in printed.splitlines()


def test_unsupported_device(benchmark: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark("operators", "--device", "mps")
    assert "argument --device: must be cpu, cuda or cuda:N, got 'mps'" in capsys.readouterr().err


def test_layers(benchmark: Benchmark, tmp_path: Path) -> None:
    """One layer against unfolding, forward, and forward and backward."""
    options = ("--layer", "outlook_attention", "--json", tmp_path / "results.json")
    benchmark("layers", "--device", "cpu", "--quick", *options)
    rows = json.loads((tmp_path / "results.json").read_text())["results"]
    assert {row["implementation"] for row in rows} == {"sa_layers", "unfold"}
    assert {row["task"] for row in rows} == {"forward", "forward and backward"}
    assert {row["operator"] for row in rows} == {"outlook attention"}
