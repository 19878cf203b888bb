"""A tiny folder of drawn images in Imagenette's layout, to test the experiments without the photographs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from .imagenette import CLASSES, SPLITS


def draw_folder(folder: Path, per_class: int, size: int = 96) -> None:
    """Write images of stripes, whose direction and colour tell the class, as PNG files.

    Args:
        folder: Folder in which ``train`` and ``val`` are made.
        per_class: Number of images of each class in each split.
        size: Side of the images. Defaults to 96.
    """
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size] / size
    for split in SPLITS:
        for index, name in enumerate(CLASSES):
            parent = folder / split / name
            parent.mkdir(parents=True, exist_ok=True)
            angle, colour = math.pi * index / len(CLASSES), np.array([index % 2, index % 3 / 2, index % 5 / 4])
            for number in range(per_class):
                phase = random.uniform(0, 2 * math.pi)
                wave = np.sin(2 * math.pi * 6 * (rows * math.cos(angle) + columns * math.sin(angle)) + phase)
                values = 0.5 + 0.3 * wave[..., None] * (2 * colour - 1) + random.normal(0, 0.1, (size, size, 3))
                Image.fromarray((255 * values.clip(0, 1)).astype(np.uint8)).save(parent / f"{number}.png")
