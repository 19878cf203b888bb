"""Drawn images in Imagenette's layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.drawn_images import draw_folder
from experiments.imagenette import ImageFolder
from tests.conftest import MakeOnce


@pytest.fixture(scope="session")
def drawn(make_once: MakeOnce) -> Path:
    """A folder with six images of each class in each split."""
    return make_once("drawn", lambda folder: draw_folder(folder, per_class=6))


@pytest.fixture(scope="session")
def images(drawn: Path) -> ImageFolder:
    return ImageFolder(drawn, size=96, complete=False)
