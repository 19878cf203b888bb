"""Default pixels of an image for visualizations: one on an edge and one in a flat region."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

MARGIN = 1 / 8
"""Margin in which no pixels are chosen, as a fraction of each side, because footprints there would cross the border."""


def choose_pixels(image: NDArray[np.uint8]) -> dict[str, tuple[int, int]]:
    """Choose the pixel with the largest brightness gradient and a pixel far away from large gradients.

    Args:
        image: Image of shape (H, W, 3).

    Returns:
        ``{'edge': (x, y), 'flat': (x, y)}``.
    """
    grey = cv2.GaussianBlur(image.mean(2).astype(np.float32), (0, 0), 1)
    change = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    height, width = change.shape
    top, left = int(height * MARGIN), int(width * MARGIN)
    inner = slice(top, max(height - top, top + 1)), slice(left, max(width - left, left + 1))

    def position(index: np.intp) -> tuple[int, int]:
        row, column = np.unravel_index(index, change[inner].shape)
        return int(column) + left, int(row) + top

    # A flat region has no gradient within a neighbourhood of an eighth of the image.
    side = max(min(height, width) // 8, 1) | 1
    around = cv2.blur(cv2.dilate(change, np.ones((side, side), np.uint8)), (side, side))
    return {"edge": position(change[inner].argmax()), "flat": position(around[inner].argmin())}
