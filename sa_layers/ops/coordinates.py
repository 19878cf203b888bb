"""Coordinates of the pixels of a map."""

from __future__ import annotations

import torch
from torch import Tensor

from .footprint import at_least_one


def coordinates(features: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Return the horizontal and vertical coordinates of the pixels of ``features``, (1, 2, H, W), in its dtype.

    Args:
        features: (N, C, H, W).
        size: (height, width) of the map across which coordinates run from -1 to 1. Defaults to that of ``features``.

    Example:
        >>> coordinates(torch.zeros(1, 1, 1, 3))[0, 0]
        tensor([[-1.,  0.,  1.]])
        >>> coordinates(torch.zeros(1, 1, 1, 5), size=(3, 3))[0, 0]
        tensor([[-2., -1.,  0.,  1.,  2.]])
    """
    height, width = features.shape[-2:]
    rows, columns = (None, None) if size is None else size
    horizontal = _axis(width, columns, features).expand(1, 1, height, width)
    vertical = _axis(height, rows, features).unsqueeze(1).expand(1, 1, height, width)
    return torch.cat([horizontal, vertical], dim=1)  # not a view, as a stack would be: see Footprint.unfold


def _axis(length: int, size: int | None, features: Tensor) -> Tensor:
    # arange instead of linspace, which torch.export would specialise to the size of its example; float32, since half
    # precision cannot represent the indices of a large map exactly.
    dtype = torch.promote_types(features.dtype, torch.float32)
    steps = torch.arange(length, dtype=dtype, device=features.device)
    if size is None:
        return (steps * 2 / at_least_one(length - 1) - 1).to(features.dtype)
    return ((steps - (length - 1) / 2) * (2 / (size - 1))).to(features.dtype)
