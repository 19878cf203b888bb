"""Position encodings as affine maps of the coordinates of a pixel and of its neighbour."""

from __future__ import annotations

import torch
from torch import Tensor


def position_matrices(matrix: Tensor, position: str) -> tuple[Tensor, Tensor]:
    """The matrices of a pixel and of its neighbour, from the weight and the bias of the encoding's linear layer.

    Args:
        matrix: (..., 2, 3), the weight's two columns and the bias.
        position: 'relative' or 'absolute'.

    Returns:
        (..., P, 3) each, with P = 2 or 4.
    """
    if position == "relative":
        return matrix, -matrix
    zeros = torch.zeros_like(matrix)
    return torch.cat([matrix, zeros], dim=-2), torch.cat([zeros, matrix], dim=-2)
