"""A workspace with a small shapes data set, and the training tools of the OpenMMLab toolboxes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sa_layers.datasets import make_shapes

from .toolboxes import toolbox


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A folder with the configs and with the data set in data/shapes, where the configs expect it."""
    root = tmp_path_factory.mktemp("workspace")
    make_shapes(root / "data/shapes", train=5, val=5, size=64, crop_size=64)
    shutil.copytree(repository / "mm_configs", root / "mm_configs")
    return root


@pytest.fixture(scope="session")
def tools() -> dict[str, Path]:
    """The path of tools/train.py of each toolbox."""
    return {name: toolbox(name) / "tools" / "train.py" for name in ("mmdet", "mmpretrain", "mmseg")}
