"""Relation between pixels of the image and pixels of a feature map."""

from __future__ import annotations

from math import log2

from .errors import VisualizationError


def check_pixel(pixel: tuple[int, int], image_size: tuple[int, int]) -> tuple[int, int]:
    """Return the pixel (x, y). Raise ``VisualizationError`` if it lies outside of the image (height, width)."""
    (x, y), (height, width) = pixel, image_size
    if not (0 <= x < width and 0 <= y < height):
        raise VisualizationError(
            f"pixel must lie in the image, x from 0 to {width - 1} and y from 0 to {height - 1}, got {x} {y}"
        )
    return x, y


def image_stride(image_size: tuple[int, int], map_size: tuple[int, int]) -> int:
    """Return the stride of a feature map in image pixels, the power of two nearest to the ratio of the sizes.

    The ratio itself is not always a power of two, because pooling may drop the last row or column.

    Example:
        >>> image_stride((65, 64), (32, 32))
        2
    """
    ratios = [image_side / map_side for image_side, map_side in zip(image_size, map_size, strict=True)]
    if ratios[0] == ratios[1] and ratios[0].is_integer():
        return int(ratios[0])
    return 2 ** round(log2(min(ratios)))
