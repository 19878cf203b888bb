"""The example of docs/visualize.md that needs a checkpoint. tests/docs runs the other examples."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from sa_layers.datasets import make_shapes

REPOSITORY = Path(__file__).resolve().parents[2]
UNTRAINED = """
from pathlib import Path
import torch
from sa_layers.visualize.openmmlab import load_model
model = load_model("mm_configs/segmentation/san10-patchwise_fpn_1xb8-1k_shapes-64x64.py")
path = Path("work_dirs/demo/training/iter_1200.pth")
path.parent.mkdir(parents=True)
torch.save(model.state_dict(), path)
"""


@pytest.mark.slow
def test_averages(tmp_path: Path, run_python: Callable[..., CompletedProcess[str]]) -> None:
    pytest.importorskip("mmseg")
    page = (REPOSITORY / "docs/visualize.md").read_text()
    (block,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "load_model" in block)
    (tmp_path / "mm_configs").symlink_to(REPOSITORY / "mm_configs")
    make_shapes(tmp_path / "scenes", train=5, val=5, size=64)
    printed = run_python(UNTRAINED + block).stdout
    assert re.search(r"backbone\.stages\.2\.blocks\.1\.attention: difference 0\.\d\d, .* of 5\n", printed), printed
