"""The images of Imagenette, ten classes of ImageNet: checked, and decoded once into one tensor of bytes."""

from __future__ import annotations

import hashlib
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .errors import DataError


class Class(NamedTuple):
    """A class: its name, and its numbers of training and validation images."""

    name: str
    train: int
    val: int


CLASSES = {
    "n01440764": Class("tench", 963, 387),
    "n02102040": Class("English springer", 955, 395),
    "n02979186": Class("cassette player", 993, 357),
    "n03000684": Class("chain saw", 858, 386),
    "n03028079": Class("church", 941, 409),
    "n03394916": Class("French horn", 956, 394),
    "n03417042": Class("garbage truck", 961, 389),
    "n03425413": Class("gas pump", 931, 419),
    "n03445777": Class("golf ball", 951, 399),
    "n03888257": Class("parachute", 960, 390),
}
SPLITS = ("train", "val")
FOLDERS = ("imagenette2-160", "imagenette2-320", "imagenette2", "imagenette-96px")  # what the archives unpack to
SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
SOURCE = (
    "torchvision.datasets.Imagenette(folder, size='160px', download=True) downloads it, and so does "
    "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz"
)


class Images(NamedTuple):
    """Decoded images: pixels (N, 3, S, S) as bytes, and the class of each, from 0."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def take(self, indices: Tensor) -> Images:
        """Return some of the images."""
        return Images(self.pixels[indices], self.labels[indices])

    def to(self, device: torch.device) -> Images:
        """Return the images on a device."""
        return Images(self.pixels.to(device), self.labels.to(device))


class ImageFolder:
    """The images of a folder, ``train/<class>/*`` and ``val/<class>/*``, decoded when they are first used.

    Args:
        folder: Folder of the splits, or the folder above it, as given to torchvision's ``Imagenette``.
        size: Side in pixels to which images are scaled and cropped. Images of this size are not changed.
        complete: Whether the folder must hold all of Imagenette. Defaults to True; otherwise one image of every class
            in each split is enough.

    Raises:
        DataError: The folder is missing, an archive that is not unpacked, or incomplete.
    """

    def __init__(self, folder: str | os.PathLike[str], size: int, complete: bool = True) -> None:
        self.folder, self.size = _find(Path(folder)), size
        self._paths = {split: _list(self.folder, split, complete) for split in SPLITS}

    @cached_property
    def train(self) -> Images:
        """The training images, class by class, in the order of their names."""
        return self._decode("train")

    @cached_property
    def val(self) -> Images:
        """The validation images, class by class, in the order of their names."""
        return self._decode("val")

    @cached_property
    def fingerprint(self) -> str:
        """The first 16 digits of the SHA-256 of all decoded pixels and labels."""
        digest = hashlib.sha256()
        for images in (self.train, self.val):
            for tensor in images:
                digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
        return digest.hexdigest()[:16]

    def _decode(self, split: str) -> Images:
        paths = self._paths[split]
        labels = torch.tensor([list(CLASSES).index(path.parent.name) for path in paths])
        pixels = torch.empty(len(paths), 3, self.size, self.size, dtype=torch.uint8)

        def decode(index: int) -> None:
            pixels[index] = decode_image(paths[index], self.size)

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes without holding the interpreter's lock
            list(pool.map(decode, range(len(paths))))
        return Images(pixels, labels)


def decode_image(path: Path, size: int) -> Tensor:
    """Decode an image, scale its shorter side to ``size`` and crop its centre: (3, size, size), bytes.

    Raises:
        DataError: The file is not a whole image.
    """
    try:
        with Image.open(path) as image:
            decoded = image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for broken files
        raise DataError(f"{path} is not a whole image ({error}); unpack it again: {SOURCE}") from error
    if decoded.size != (size, size):
        scale = size / min(decoded.size)
        width, height = (max(size, round(side * scale)) for side in decoded.size)
        left, top = (width - size) // 2, (height - size) // 2
        decoded = decoded.resize((width, height), Image.Resampling.BICUBIC)
        decoded = decoded.crop((left, top, left + size, top + size))
    return torch.from_numpy(np.array(decoded)).permute(2, 0, 1)


def _find(folder: Path) -> Path:
    if folder.is_file():
        unpack = f"; unpack it: tar xf {folder}" if tarfile.is_tarfile(folder) else ""
        raise DataError(f"--data must be a folder, got the file {folder}{unpack}")
    if not folder.exists():
        raise DataError(f"there is no folder {folder}. It should hold Imagenette: {SOURCE}")
    candidates = [folder, *(folder / name for name in FOLDERS)]
    found = [candidate for candidate in candidates if any((candidate / split).is_dir() for split in SPLITS)]
    if not found:
        raise DataError(f"{folder} holds neither train/ nor val/. It should hold Imagenette: {SOURCE}")
    return found[0]


def _list(folder: Path, split: str, complete: bool) -> list[Path]:
    """List the images of a split, class by class."""
    paths: list[Path] = []
    for name, described in CLASSES.items():
        parent, needed = folder / split / name, getattr(described, split) if complete else 1
        found = sorted(path for path in parent.glob("*") if path.suffix.lower() in SUFFIXES)
        if len(found) < needed:
            raise DataError(
                f"{folder} is incomplete: {split}/{name} has {len(found)} of {needed} images. Unpack it again, or "
                f"download it: {SOURCE}"
            )
        paths += found
    return paths
