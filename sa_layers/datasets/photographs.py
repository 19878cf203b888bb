"""Backgrounds: random crops of the photographs that ship inside scikit-image's wheel."""

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sa_layers.datasets.errors import MissingPackageError

PHOTOGRAPHS: dict[str, tuple[str, ...]] = {
    "train": (
        "astronaut.png",
        "brick.png",
        "camera.png",
        "coffee.png",
        "grass.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "retina.jpg",
    ),
    "val": ("chelsea.png", "gravel.png", "motorcycle_left.png", "rocket.jpg"),
}
"""File names per split. No photograph, and no second view of one, is in both, so validation sees unseen backgrounds."""

SMALLEST_CROP = 0.35
"""Side of the smallest crop, as a fraction of the photograph's shorter side."""


@dataclass(frozen=True)
class Photograph:
    """One photograph: its file name, the SHA-256 of its file, and its pixels, (H, W, 3) uint8 in BGR order."""

    name: str
    sha256: str
    pixels: NDArray[np.uint8]


def load_photographs(split: str) -> tuple[Photograph, ...]:
    """Read the photographs of a split from scikit-image's data folder.

    Args:
        split: ``'train'`` or ``'val'``.

    Raises:
        MissingPackageError: scikit-image is not installed, or a photograph of it is missing or damaged.
    """
    # The package is only located: importing it would load SciPy for nothing.
    specification = find_spec("skimage")
    if specification is None or specification.origin is None:
        raise MissingPackageError("scikit-image is missing: pip install 'sa-layers[datasets]'")
    folder = Path(specification.origin).parent / "data"
    photographs = []
    for name in PHOTOGRAPHS[split]:
        try:
            content = (folder / name).read_bytes()
            # Decoded from memory: cv2.imread cannot open every path on Windows.
            pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        except (OSError, cv2.error):
            pixels = None
        if pixels is None:
            raise MissingPackageError(
                f"scikit-image's photograph {folder / name} is missing or damaged: "
                "pip install --force-reinstall scikit-image"
            )
        photographs.append(Photograph(name, hashlib.sha256(content).hexdigest(), np.asarray(pixels, np.uint8)))
    return tuple(photographs)


def random_crop(photograph: Photograph, size: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Take a random square crop, perhaps mirrored, in random light.

    Args:
        photograph: where to crop.
        size: side of the result in pixels. The crop is never enlarged unless the photograph is smaller than this.
        generator: source of randomness.

    Returns:
        (size, size, 3) float32 in BGR order, 0 to 255.
    """
    height, width = photograph.pixels.shape[:2]
    shorter = min(height, width)
    smallest = max(round(SMALLEST_CROP * shorter), min(size, shorter))
    side = int(generator.integers(smallest, shorter + 1))
    top = int(generator.integers(0, height - side + 1))
    left = int(generator.integers(0, width - side + 1))
    crop = photograph.pixels[top : top + side, left : left + side]
    interpolation = cv2.INTER_AREA if side >= size else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(crop, (size, size), interpolation=interpolation), np.float32)
    if generator.random() < 0.5:
        resized = resized[:, ::-1]
    # Brightness, and a tint: without it grey photographs would mark everything colourful as an object.
    light = generator.uniform(0.75, 1.2) * generator.uniform(0.85, 1.15, size=3)
    return np.clip(resized * light.astype(np.float32), 0, 255)
