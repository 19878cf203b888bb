"""Position: where a pixel lies, told to a relation that otherwise sees only features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops import pairwise_relation
from ..ops.footprint import IntOrPair

POSITIONS = ("relative", "absolute")


class PositionEncoding(nn.Module):
    r"""Encodes the positions of every pair (i, j) of a footprint, to be concatenated to its relation.

    Coordinates run from -1 to 1 across the map and pass through a linear layer, giving :math:`p_i`. 'relative' is
    :math:`p_i - p_j`, 'absolute' is :math:`[p_i, p_j]`. A neighbour beyond the border has the coordinates of the pixel
    that the reflection reads. As in the official network, the step between pixels is ``2 / (size - 1)``: the same
    offset is encoded differently on maps of another size.

    Args:
        position: 'relative' (2 channels) or 'absolute' (4 channels).

    Raises:
        ValueError: ``position`` is unknown.

    Example:
        >>> PositionEncoding("relative")(torch.zeros(1, 8, 5, 5), kernel_size=3).shape
        torch.Size([1, 2, 9, 25])
    """

    def __init__(self, position: str = "relative") -> None:
        super().__init__()
        if position not in POSITIONS:
            raise ValueError(f"position must be one of {', '.join(POSITIONS)} or None, got {position!r}")
        self.position = position
        self.channels = 2 if position == "relative" else 4
        # (horizontal, vertical) -> p; the bias cancels in p_i - p_j but belongs to the official checkpoints
        self.transform = nn.Conv2d(2, 2, 1)

    def forward(
        self,
        features: Tensor,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        dilation: IntOrPair = 1,
        padding_mode: str = "reflect",
    ) -> Tensor:
        """Encodes the pairs of the map of ``features``, (N, C, H, W) -> (1, channels, Kh * Kw, Ho * Wo)."""
        positions = self.transform(coordinates(features))
        relation = "subtraction" if self.position == "relative" else "concatenation"
        return pairwise_relation(positions, positions, kernel_size, relation, stride, dilation, padding_mode)

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        return repr(self.position)


def coordinates(features: Tensor) -> Tensor:
    """Horizontal and vertical coordinates from -1 to 1 of the map of ``features``: (1, 2, H, W), its dtype.

    Example:
        >>> coordinates(torch.zeros(1, 1, 1, 3))[0, 0]
        tensor([[-1.,  0.,  1.]])
    """
    height, width = features.shape[-2:]
    horizontal = _axis(width, features).unsqueeze(0).expand(height, width)
    vertical = _axis(height, features).unsqueeze(1).expand(height, width)
    return torch.stack([horizontal, vertical]).unsqueeze(0)


def _axis(size: int, features: Tensor) -> Tensor:
    """torch.linspace(-1, 1, size), which torch.export would fix to the size of its example."""
    dtype = torch.promote_types(features.dtype, torch.float32)  # bfloat16 cannot count beyond 256
    index = torch.arange(size, dtype=dtype, device=features.device)
    return (index * 2 / max(size - 1, 1) - 1).to(features.dtype)
