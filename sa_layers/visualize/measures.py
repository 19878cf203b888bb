"""Measures of attention weights and receptive fields."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def entropy(kernels: Array) -> float:
    """Compute the normalised entropy of the absolute weights over the footprint, averaged over channels.

    It is 1 for equal absolute weights and 0 for a single nonzero weight.

    Args:
        kernels: Weights of a footprint, (Cw, Kh, Kw).

    Example:
        >>> round(entropy(np.ones((2, 3, 3), np.float32)), 6)
        1.0
    """
    magnitudes = np.abs(kernels.reshape(len(kernels), -1)).astype(np.float64)
    probabilities = magnitudes / np.maximum(magnitudes.sum(1, keepdims=True), np.finfo(np.float64).tiny)
    entropies = -(probabilities * np.log(np.where(probabilities > 0, probabilities, 1))).sum(1)
    return float(entropies.mean() / np.log(max(probabilities.shape[1], 2)))


def difference(kernels: Array, others: Array) -> float:
    """Compute the mean absolute difference of the weights of two footprints, relative to their mean absolute weight.

    It is 0 for equal weights and 2 for opposite weights.

    Args:
        kernels: Weights of a footprint, (Cw, Kh, Kw).
        others: Weights of the same layer at another pixel, (Cw, Kh, Kw).

    Example:
        >>> difference(np.ones((1, 3, 3), np.float32), np.full((1, 3, 3), 3, np.float32))
        1.0
    """
    scale = (np.abs(kernels).mean() + np.abs(others).mean()) / 2
    return float(np.abs(kernels - others).mean() / max(scale, np.finfo(np.float32).tiny))


def half_radius(field: Array, pixel: tuple[int, int]) -> float:
    """Compute the radius in pixels of the disc around (x, y) that contains half of a receptive field."""
    rows, columns = np.indices(field.shape)
    distances = np.hypot(columns - pixel[0], rows - pixel[1]).ravel()
    order = distances.argsort()
    inside = field.ravel()[order].astype(np.float64).cumsum()
    return float(distances[order][min(np.searchsorted(inside, inside[-1] / 2), len(inside) - 1)])
