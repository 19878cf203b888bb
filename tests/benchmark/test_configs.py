"""The benchmark of OpenMMLab configs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sa_layers.benchmark.__main__ import main

from .conftest import Benchmark


def test_quick(benchmark: Benchmark, repository: Path, tmp_path: Path) -> None:
    """A config of mmpretrain and one of ours, in both memory layouts."""
    pytest.importorskip("mmpretrain")
    ours = repository / "mm_configs/classification/san10-patchwise_1xb16-10e_shapes-64px.py"
    result = tmp_path / "configs.json"
    stock = "mmpretrain::resnet/resnet18_8xb32_in1k.py"
    benchmark("configs", stock, ours, "--quick", "--json", result)
    rows = json.loads(result.read_text())["results"]
    names = [f"{name}{layout}" for name in (Path(stock).stem, ours.stem) for layout in ("", ", channels last")]
    assert [row["model"] for row in rows] == names
    assert min(rows[:2], key=lambda row: row["median_s"])["ratio"] == 1
    assert all(row["median_s"] >= row["fastest_s"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("nowhere.py", "CONFIG must be a file, or TOOLBOX::FILE of an installed toolbox, got 'nowhere.py'"),
        ("mmnowhere::a.py", "CONFIG 'mmnowhere::a.py' needs 'mmnowhere', which is not installed"),
    ],
)
def test_missing_config(config: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mmengine")
    assert main(["configs", config]) == 1
    assert capsys.readouterr().err == f"error: {message}.\n"
