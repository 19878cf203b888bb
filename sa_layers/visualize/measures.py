"""Numbers for what the pictures show: how spread out a footprint's weights are, how two footprints differ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def entropy(kernels: Array) -> float:
    """How evenly the absolute weights spread over the footprint, the mean over channels: 1 even, 0 a single tap.

    Args:
        kernels: (Cw, Kh, Kw).

    Example:
        >>> round(entropy(np.ones((2, 3, 3), np.float32)), 6)
        1.0
    """
    magnitudes = np.abs(kernels.reshape(len(kernels), -1)).astype(np.float64)
    shares = magnitudes / np.maximum(magnitudes.sum(1, keepdims=True), np.finfo(np.float64).tiny)
    bits = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(1)
    return float(bits.mean() / np.log(max(shares.shape[1], 2)))


def difference(kernels: Array, others: Array) -> float:
    """The mean absolute difference of two footprints' weights, relative to the mean of their absolute weights.

    0 for equal weights; 2 for opposite ones.

    Args:
        kernels: (Cw, Kh, Kw).
        others: The same layer's at another pixel.

    Example:
        >>> difference(np.ones((1, 3, 3), np.float32), np.full((1, 3, 3), 3, np.float32))
        1.0
    """
    scale = (np.abs(kernels).mean() + np.abs(others).mean()) / 2
    return float(np.abs(kernels - others).mean() / max(scale, np.finfo(np.float32).tiny))


def half_radius(field: Array, pixel: tuple[int, int]) -> float:
    """The radius in pixels round (x, y) of the disc that holds half of a receptive field."""
    rows, columns = np.indices(field.shape)
    distances = np.hypot(columns - pixel[0], rows - pixel[1]).ravel()
    order = distances.argsort()
    held = field.ravel()[order].astype(np.float64).cumsum()
    return float(distances[order][min(np.searchsorted(held, held[-1] / 2), len(held) - 1)])
