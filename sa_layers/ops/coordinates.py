"""Coordinates of the pixels of a map."""

from __future__ import annotations

import torch
from torch import Tensor


def coordinates(features: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Horizontal and vertical coordinates of the map of ``features``: (1, 2, H, W), its dtype.

    Args:
        features: (N, C, H, W).
        size: Height and width of the map that reaches from -1 to 1. Defaults to that of ``features``.

    Example:
        >>> coordinates(torch.zeros(1, 1, 1, 3))[0, 0]
        tensor([[-1.,  0.,  1.]])
        >>> coordinates(torch.zeros(1, 1, 1, 5), size=(3, 3))[0, 0]
        tensor([[-2., -1.,  0.,  1.,  2.]])
    """
    height, width = features.shape[-2:]
    rows, columns = (None, None) if size is None else size
    horizontal = _axis(width, columns, features).unsqueeze(0).expand(height, width)
    vertical = _axis(height, rows, features).unsqueeze(1).expand(height, width)
    return torch.stack([horizontal, vertical]).unsqueeze(0)


def _axis(length: int, size: int | None, features: Tensor) -> Tensor:
    # Counted, since torch.export would fix linspace to the size of its example; in float32, since half precision has no
    # exact numbers for the pixels of a large map.
    dtype = torch.promote_types(features.dtype, torch.float32)
    steps = torch.arange(length, dtype=dtype, device=features.device)
    if size is None:
        return (steps * 2 / max(length - 1, 1) - 1).to(features.dtype)
    return ((steps - (length - 1) / 2) * (2 / (size - 1))).to(features.dtype)
