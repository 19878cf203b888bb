"""The benchmark of OpenMMLab configs, run as a program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import RunPython

COMMAND = ("-m", "sa_layers.benchmark", "configs")


def test_quick(run_python: RunPython, repository: Path, tmp_path: Path) -> None:
    """A config of mmpretrain and one of ours, in both memory layouts."""
    pytest.importorskip("mmpretrain")
    ours = repository / "mm_configs/classification/san10-patchwise_1xb16-10e_shapes-64px.py"
    result = tmp_path / "configs.json"
    stock = "mmpretrain::resnet/resnet18_8xb32_in1k.py"
    run_python(None, *COMMAND, stock, ours, "--quick", "--threads", "1", "--json", result)
    rows = json.loads(result.read_text())["results"]
    names = [f"{name}{layout}" for name in (Path(stock).stem, ours.stem) for layout in ("", ", channels last")]
    assert [row["model"] for row in rows] == names
    assert min(rows[:2], key=lambda row: row["median_s"])["ratio"] == 1
    assert all(row["median_s"] >= row["fastest_s"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("nowhere.py", "CONFIG must be a file, or TOOLBOX::FILE of an installed toolbox, got 'nowhere.py'"),
        ("mmnowhere::a.py", "CONFIG 'mmnowhere::a.py' needs mmnowhere, which is not installed"),
    ],
)
def test_missing_config(run_python: RunPython, config: str, message: str) -> None:
    pytest.importorskip("mmengine")
    process = run_python(None, *COMMAND, config, check=False)
    assert process.returncode
    assert process.stdout.splitlines()[-1] == message
