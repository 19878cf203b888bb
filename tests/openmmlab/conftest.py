"""A workspace with a small shapes data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from sa_layers.datasets import make_shapes
from tests.checkpoints.official import official, official_state, save_official
from tests.conftest import MakeOnce

__all__ = ["official", "official_state", "save_official"]


@pytest.fixture(scope="session")
def shapes(make_once: MakeOnce) -> Path:
    """The smallest data set."""
    return make_once("shapes", lambda folder: make_shapes(folder / "shapes", train=5, val=5, size=64, crop_size=64))


@pytest.fixture
def workspace(shapes: Path, tmp_path: Path, repository: Path) -> Path:
    """A folder like a user's: the configs, and the data set under data/shapes, where they look for it."""
    return make_workspace(tmp_path, shapes, repository)


def make_workspace(folder: Path, shapes: Path, repository: Path) -> Path:
    """``workspace`` for fixtures that are made once."""
    (folder / "data").symlink_to(shapes)
    (folder / "mm_configs").symlink_to(repository / "mm_configs")
    return folder
