"""The images on which a run is trained and tested, and how the latter are cropped."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Generator, Tensor

from .augmentation import Crops, crop
from .imagenette import CLASSES, ImageFolder, Images
from .plan import SEARCH, Run
from .recipes import Recipe

CENTRE = 0.875  # of the side: 224 of 256 pixels in the paper
HELD_OUT = 10  # one in ten training images


class Views:
    """The images of a folder as runs use them. Their order in each class is random, and the same for all runs.

    Args:
        folder: The decoded images.
        device: Where they are kept.
    """

    def __init__(self, folder: ImageFolder, device: torch.device) -> None:
        self.fingerprint = folder.fingerprint
        self._train, self._val, self._device = folder.train, folder.val, device
        self.tested: Callable[[str, Recipe], Images] = cache(self._tested)

    def training(self, run: Run) -> Images:
        """The training images of a run: for a choice of learning rate, without those that are held out for it."""
        limit, without_held_out = run.recipe.images_per_class, run.purpose == SEARCH
        return _choose(self._train, lambda order: order[: _rest(order) if without_held_out else None][:limit]).to(
            self._device
        )

    def _tested(self, purpose: str, recipe: Recipe) -> Images:
        """The images that are classified after a run: validation images, or the tenth of the training images."""
        if purpose == SEARCH:
            images = _choose(self._train, lambda order: order[_rest(order) :])
        else:
            images = _choose(self._val, lambda order: order[: recipe.val_images_per_class])
        return Images(crop_centre(images.pixels, recipe.image_size), images.labels).to(self._device)


def crop_centre(pixels: Tensor, size: int) -> Tensor:
    """Cut out the centre of images and scale it to ``size``: bytes (N, 3, S, S) -> bytes (N, 3, size, size)."""
    side = CENTRE * pixels.shape[2]
    margin = (pixels.shape[2] - side) / 2
    parts = []
    for part in pixels.split(256):
        box = Crops(*(torch.full((len(part),), value) for value in (margin, margin, side, side, 0)))
        parts.append((crop(part, box, size) * 255).round().clamp(0, 255).to(torch.uint8))
    return torch.cat(parts)


def first_of_each_class(images: Images, per_class: int) -> Images:
    """Return the first images of each class, the same for all runs."""
    return _choose(images, lambda order: torch.sort(order).values[:per_class])


def _rest(order: Tensor) -> int:
    """How many images of a class are not held out."""
    return len(order) - max(1, len(order) // HELD_OUT)


def _choose(images: Images, select: Callable[[Tensor], Tensor]) -> Images:
    """Return the images that a function selects from each class, whose indices it gets in a random order."""
    generator = Generator().manual_seed(0)
    chosen = []
    for label in range(len(CLASSES)):
        (indices,) = torch.nonzero(images.labels == label, as_tuple=True)
        chosen.append(select(indices.cpu()[torch.randperm(len(indices), generator=generator)]))
    return images.take(torch.cat(chosen).to(images.labels.device))
