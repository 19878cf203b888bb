"""Backgrounds of the scenes: random crops of the photographs in scikit-image's wheel."""

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sa_layers.datasets.errors import MissingPackageError

PHOTOGRAPHS: tuple[str, ...] = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
"""File names in scikit-image's data folder. Each shows a different scene."""

SPLIT_COLUMNS: dict[str, tuple[float, float]] = {"train": (0.0, 0.65), "val": (0.65, 1.0)}
"""Columns of every photograph that a split uses, as fractions of the width. The splits share no pixels. They share the
photographs, because twelve are too few to generalise to unseen ones."""

MIN_CROP = 0.35
"""Minimum side of a crop, as a fraction of the photograph's shorter side."""


@dataclass(frozen=True)
class Photograph:
    """The part of a photograph that a split uses: file name, SHA-256 of the file, (H, W, 3) uint8 BGR pixels."""

    name: str
    sha256: str
    pixels: NDArray[np.uint8]


def load_photographs(split: str) -> tuple[Photograph, ...]:
    """Load the photographs for a split from scikit-image's data folder.

    Args:
        split: ``'train'`` or ``'val'``.

    Raises:
        MissingPackageError: If scikit-image is not installed, or one of its photographs is missing or damaged.
    """
    # Importing the package would load SciPy, which is not needed.
    specification = find_spec("skimage")
    if specification is None or specification.origin is None:
        raise MissingPackageError("scikit-image is missing: pip install 'sa-layers[datasets]'")
    folder = Path(specification.origin).parent / "data"
    photographs = []
    for name in PHOTOGRAPHS:
        try:
            content = (folder / name).read_bytes()
            # Decode from memory, because cv2.imread does not support all paths on Windows.
            pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        except (OSError, cv2.error):
            pixels = None
        if pixels is None:
            raise MissingPackageError(
                f"scikit-image's photograph {folder / name} is missing or damaged: "
                "pip install --force-reinstall scikit-image"
            )
        left, right = (round(fraction * pixels.shape[1]) for fraction in SPLIT_COLUMNS[split])
        part = np.asarray(pixels[:, left:right], np.uint8)
        photographs.append(Photograph(name, hashlib.sha256(content).hexdigest(), part))
    return tuple(photographs)


def random_crop(photograph: Photograph, size: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Take a random square crop with random flip, brightness and tint.

    Args:
        photograph: Photograph to crop.
        size: Side of the result in pixels. The crop is enlarged only if the photograph is smaller than this.
        generator: Random number generator.

    Returns:
        (size, size, 3) float32 in BGR order, 0 to 255.
    """
    height, width = photograph.pixels.shape[:2]
    shorter = min(height, width)
    smallest = max(round(MIN_CROP * shorter), min(size, shorter))
    side = int(generator.integers(smallest, shorter + 1))
    top = int(generator.integers(0, height - side + 1))
    left = int(generator.integers(0, width - side + 1))
    crop = photograph.pixels[top : top + side, left : left + side]
    interpolation = cv2.INTER_AREA if side >= size else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(crop, (size, size), interpolation=interpolation), np.float32)
    if generator.random() < 0.5:
        resized = resized[:, ::-1]
    # Without the tint, saturation would identify the objects on grey photographs.
    light = generator.uniform(0.75, 1.2) * generator.uniform(0.85, 1.15, size=3)
    return np.clip(resized * light.astype(np.float32), 0, 255)
