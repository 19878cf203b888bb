"""The README's backbone swaps build, its links and extras exist; its programs run in test_pages.py."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
CONFIGS = [block for block in PYTHON if "_base_" in block]
TOOLBOXES = {"mmdet": "mmdet::", "mmpretrain": "mmpretrain::", "mmseg": '"./'}

BUILD = """
import sys, warnings, torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
config = Config.fromfile("swapped.py")
assert "custom_imports" not in config
init_default_scope(sys.argv[1])
if "data_preprocessor" in config:  # the runner does as much
    config.model.setdefault("data_preprocessor", config.data_preprocessor)
model = MODELS.build(config.model).eval()
print(type(model.backbone).__name__, len(model.extract_feat(torch.randn(1, 3, 64, 64))))
"""


@pytest.mark.parametrize("toolbox", TOOLBOXES)
def test_swapped_backbone(toolbox: str, tmp_path: Path, run_python: Callable[..., CompletedProcess[str]]) -> None:
    pytest.importorskip("mmcv._ext" if toolbox == "mmdet" else toolbox, exc_type=ImportError)
    pytest.importorskip("mmengine")
    (block,) = (block for block in CONFIGS if TOOLBOXES[toolbox] in block)
    if toolbox == "mmseg":  # "in a config beside mmseg's"
        configs = Path(pytest.importorskip("mmseg").__file__).parent / ".mim/configs"
        shutil.copytree(configs / "_base_", tmp_path / "_base_")
        shutil.copytree(configs / "sem_fpn", tmp_path / "sem_fpn")
    folder = tmp_path / "sem_fpn"
    folder.mkdir(exist_ok=True)
    (folder / "swapped.py").write_text(block)
    assert run_python(BUILD, toolbox, cwd=folder).stdout.splitlines()[-1].startswith("SAN ")


def test_extras_exist() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text()
    for extras in re.findall(r"pip install '\.\[([\w,]+)\]'", README):
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (REPOSITORY / target).exists(), target
