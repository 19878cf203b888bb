"""Random resized crops and flips of a whole batch, each image with a box of its own, as products with two matrices.

Cutting out a box, scaling it with an antialiased triangle filter and flipping it are linear along each axis: one matrix
for the rows and one for the columns of each image. The result for every image is that of torchvision's
``RandomResizedCrop`` and ``RandomHorizontalFlip``, on any device, without a loop over images.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

SCALE, RATIO, ATTEMPTS = (0.08, 1.0), (3 / 4, 4 / 3), 10  # torchvision's defaults


class Crops(NamedTuple):
    """Boxes in pixels, and which of the images are flipped: tensors of shape (N,)."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flipped: Tensor

    def take(self, indices: Tensor) -> Crops:
        """Return some of the crops."""
        return Crops(*(tensor[indices] for tensor in self))


def draw_crops(count: int, size: int, generator: Generator) -> Crops:
    """Draw boxes with torchvision's distribution: 8 % to 100 % of the area of a square image, ratio 3/4 to 4/3.

    Args:
        count: Number of images.
        size: Side of the images.
        generator: Source of the random numbers, on the CPU, so that they are the same on every device.

    Example:
        >>> crops = draw_crops(1000, 96, torch.Generator().manual_seed(0))
        >>> bool((crops.top + crops.height <= 96).all() and (crops.left + crops.width <= 96).all())
        True
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)

    area = size * size * uniform(*SCALE, count, ATTEMPTS)
    ratio = uniform(math.log(RATIO[0]), math.log(RATIO[1]), count, ATTEMPTS).exp()
    widths, heights = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (widths <= size) & (heights <= size) & (widths > 0) & (heights > 0)
    first = fits.to(torch.int8).argmax(1, keepdim=True)  # the first attempt that fits
    failed = ~fits.any(1)  # torchvision falls back to the largest box in the centre, here the whole square
    width, height = (sides.gather(1, first)[:, 0].masked_fill(failed, size) for sides in (widths, heights))
    top, left = ((uniform(0, 1, count) * (size - side + 1)).floor() for side in (height, width))
    return Crops(top, left, height, width, uniform(0, 1, count) < 0.5)


def crop(pixels: Tensor, crops: Crops, size: int) -> Tensor:
    """Cut out a box of each image, scale it to ``size`` pixels and flip some: bytes -> float32 from 0 to 1.

    Args:
        pixels: Images (N, C, H, W) as bytes.
        crops: N boxes.
        size: Side of the result.

    Returns:
        Images (N, C, size, size).

    Example:
        >>> whole = Crops(*torch.tensor([[0], [0], [8], [8], [0]]))
        >>> crop(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8), whole, 4).mean().item()
        1.0
    """
    rows = _resampling(crops.top, crops.height, pixels.shape[2], size)
    columns = _resampling(crops.left, crops.width, pixels.shape[3], size)
    columns = torch.where(crops.flipped.bool()[:, None, None], columns.flip(1), columns)
    rows, columns = (matrix.to(pixels.device, torch.float32)[:, None] for matrix in (rows, columns))
    return rows @ (pixels.float() / 255) @ columns.transpose(2, 3)


def _resampling(begin: Tensor, length: Tensor, source: int, size: int) -> Tensor:
    """Make matrices (N, size, source) that scale ``length`` pixels from ``begin`` on to ``size`` pixels."""
    begin, length = begin.double()[:, None, None], length.double()[:, None, None]
    scale = length / size
    centre = begin + (torch.arange(size).double()[:, None] + 0.5) * scale
    position = torch.arange(source).double() + 0.5
    weight = (1 - (position - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    weight = weight * ((position > begin) & (position < begin + length))  # nothing from outside of the box
    return weight / weight.sum(2, keepdim=True)
