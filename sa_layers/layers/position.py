"""Position: where a pixel lies, told to a relation that otherwise sees only features."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops import pairwise_relation
from ..ops.coordinates import coordinates
from ..ops.footprint import IntOrPair, pair

POSITIONS = ("relative", "absolute")


class PositionEncoding(nn.Module):
    r"""Encodes the positions of every pair (i, j) of a footprint, to be concatenated to its relation.

    Coordinates run from -1 to 1 across the map and pass through a linear layer, giving :math:`p_i`. 'relative' is
    :math:`p_i - p_j`, 'absolute' is :math:`[p_i, p_j]`. A neighbour beyond the border has the coordinates of the pixel
    that the reflection reads. As in the official network, the step between pixels is ``2 / (size - 1)``: the same
    offset is encoded differently on maps of another size. With ``size``, the step is that of maps of this size,
    whatever the size of the map at hand, whose centre is 0.

    Args:
        position: 'relative' (2 channels) or 'absolute' (4 channels).
        size: The map across which coordinates run from -1 to 1, in pixels, an integer or (height, width); usually the
            map on which the layer was trained. Defaults to None, the map at hand.

    Raises:
        TypeError: ``size`` is not an integer or a pair.
        ValueError: ``position`` is unknown, or ``size`` is below 2: one pixel has no neighbour to measure a step to.

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
        positions = self.transform(coordinates(features, self.size))
        relation = "subtraction" if self.position == "relative" else "concatenation"
        return pairwise_relation(positions, positions, kernel_size, relation, stride, dilation, padding_mode)

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        return repr(self.position) + f", size={self.size}" * (self.size is not None)
