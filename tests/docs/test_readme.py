"""The README's swapped backbones build; its links and extras exist. Its programs run in test_pages.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import RunPrograms

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
CONFIGS = [block for block in PYTHON if "_base_" in block]
TOOLBOXES = {"mmdet": "mmdet::", "mmpretrain": "mmpretrain::", "mmseg": '"mmseg"'}

BUILD = """
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
config = Config.fromfile({path!r})
assert "custom_imports" not in config
init_default_scope({toolbox!r})
if "data_preprocessor" in config:  # as the runner does
    config.model.setdefault("data_preprocessor", config.data_preprocessor)
model = MODELS.build(config.model).eval()
print(type(model.backbone).__name__, len(model.extract_feat(torch.randn(1, 3, 64, 64))))
"""


def test_swapped_backbones(tmp_path: Path, run_programs: RunPrograms) -> None:
    for toolbox in TOOLBOXES:
        pytest.importorskip("mmcv._ext" if toolbox == "mmdet" else toolbox, exc_type=ImportError)
    pytest.importorskip("mmengine")
    programs = {}
    for toolbox, word in TOOLBOXES.items():
        (block,) = (block for block in CONFIGS if word in block)
        path = tmp_path / f"{toolbox}.py"
        path.write_text(block)
        programs[toolbox] = BUILD.format(path=str(path), toolbox=toolbox)
    for printed in run_programs(programs, imported=("torch", "mmengine.runner")).values():
        assert printed.splitlines()[-1].startswith("SAN ")


def test_extras_exist() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text()
    for extras in re.findall(r"pip install '\.\[([\w,]+)\]'", README):
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (REPOSITORY / target).exists(), target
