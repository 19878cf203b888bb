"""Position encoding of pairs of pixels, for relations that otherwise depend on features only."""

from __future__ import annotations

import torch.fx
from torch import Tensor, nn

from ..fused.originals import replaceable
from ..ops import pairwise_relation
from ..ops.coordinates import coordinates
from ..ops.footprint import IntOrPair, pair

# Functions that torch.fx records as they are.
torch.fx.wrap("coordinates")
torch.fx.wrap("pairwise_relation")

POSITIONS = ("relative", "absolute")


@replaceable("forward")
class PositionEncoding(nn.Module):
    r"""The encoded positions of every pair (i, j) of a footprint, which are concatenated to its relation.

    Coordinates run from -1 to 1 across the map and pass through a linear layer, giving :math:`p_i`. 'relative' is
    :math:`p_i - p_j`, 'absolute' is :math:`[p_i, p_j]`. A reflected neighbour has the coordinates of the pixel that it
    reflects. As in the official network, pixels are ``2 / (size - 1)`` apart, so the encoding of an offset depends on
    the size of the map. With the argument ``size``, the distance is that of a map of this size for every input, and the
    centre of the input is 0.

    Args:
        position: 'relative' (2 channels) or 'absolute' (4 channels).
        size: The size in pixels of the map across which coordinates run from -1 to 1, an integer or (height, width);
            usually that of training. Defaults to None, for the size of the input.

    Raises:
        TypeError: ``size`` is not an integer or a pair.
        ValueError: ``position`` is unknown, or ``size`` is less than 2.

    Example:
        >>> import torch
        >>> PositionEncoding("relative")(torch.zeros(1, 8, 5, 5), kernel_size=3).shape
        torch.Size([1, 2, 9, 25])
    """

    def __init__(self, position: str = "relative", size: IntOrPair | None = None) -> None:
        super().__init__()
        if position not in POSITIONS:
            raise ValueError(f"position must be one of {', '.join(POSITIONS)} or None, got {position!r}")
        self.position = position
        self.size = None if size is None else pair(size, "position_size")
        if self.size is not None and min(self.size) < 2:
            raise ValueError(f"position_size must be at least 2, got {size!r}")
        self.channels = 2 if position == "relative" else 4
        # (horizontal, vertical) -> p; the bias cancels in p_i - p_j, but official checkpoints contain it
        self.transform = nn.Conv2d(2, 2, 1)

    def forward(
        self,
        features: Tensor,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        dilation: IntOrPair = 1,
        padding_mode: str = "reflect",
    ) -> Tensor:
        """Encode the pairs of the map ``features``, (N, C, H, W) -> (1, channels, Kh * Kw, Ho * Wo)."""
        positions = self.transform(coordinates(features, self.size))
        relation = "subtraction" if self.position == "relative" else "concatenation"
        return pairwise_relation(positions, positions, kernel_size, relation, stride, dilation, padding_mode)

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        return repr(self.position) + f", size={self.size}" * (self.size is not None)
