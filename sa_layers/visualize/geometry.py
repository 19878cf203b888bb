"""Pixels of the image and pixels of a layer's map."""

from __future__ import annotations

from math import log2

from .errors import VisualizationError


def check_pixel(pixel: tuple[int, int], image_size: tuple[int, int]) -> tuple[int, int]:
    """Refuses a pixel (x, y) outside of an image of ``image_size`` (height, width)."""
    (x, y), (height, width) = pixel, image_size
    if not (0 <= x < width and 0 <= y < height):
        raise VisualizationError(
            f"pixel must lie in the image, x from 0 to {width - 1} and y from 0 to {height - 1}, got {x} {y}"
        )
    return x, y


def image_stride(image_size: tuple[int, int], map_size: tuple[int, int]) -> int:
    """Image pixels between neighbours on a map: the power of two nearest to the quotient of the sizes.

    The quotient itself is none where pooling drops a last row or column.

    Example:
        >>> image_stride((65, 64), (32, 32))
        2
    """
    quotients = [image / on_map for image, on_map in zip(image_size, map_size, strict=True)]
    if quotients[0] == quotients[1] and quotients[0].is_integer():
        return int(quotients[0])
    return 2 ** round(log2(min(quotients)))
