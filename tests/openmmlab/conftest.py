"""The embedded data set, small, and the OpenMMLab toolboxes' own training tools."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sa_layers.datasets import make_shapes

from .toolboxes import toolbox


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A folder like a user's: the data set under data/shapes, where the configs look for it, and the configs."""
    root = tmp_path_factory.mktemp("workspace")
    make_shapes(root / "data/shapes", train=5, val=5, size=64, crop_size=64)
    shutil.copytree(repository / "mm_configs", root / "mm_configs")
    return root


@pytest.fixture(scope="session")
def tools() -> dict[str, Path]:
    """tools/train.py of every toolbox."""
    return {name: toolbox(name) / "tools" / "train.py" for name in ("mmdet", "mmpretrain", "mmseg")}
