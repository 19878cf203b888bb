"""Patchwise self-attention (section 3.2 of the paper): the footprint as a whole weighs each of its pixels."""

from __future__ import annotations

from torch import Tensor

from ..ops import PATCHWISE_RELATIONS, aggregation, patchwise_relation
from ..ops.footprint import IntOrPair
from .self_attention import SelfAttention


class PatchwiseSelfAttention(SelfAttention):
    r"""Vector attention from the patch under the footprint.

    .. math:: y_i = \sum_{j \in R(i)} \gamma(\delta(x_{R(i)}))_j \odot \beta(x_j)

    Equations 4 and 5 of "Exploring Self-attention for Image Recognition"; no softmax. The arguments are those of
    :class:`SelfAttention`; ``relation`` is 'concatenation' (default), 'star' or 'clique'. There is no position
    encoding: the mapping has weights of its own for every tap.

    Shapes:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))

    Example:
        >>> import torch
        >>> layer = PatchwiseSelfAttention(64, 64, kernel_size=7, stride=2)
        >>> layer(torch.randn(2, 64, 14, 14)).shape
        torch.Size([2, 64, 7, 7])
    """

    relations = PATCHWISE_RELATIONS

    def make_position(self, position: str | None, size: IntOrPair | None) -> None:
        """Refuses an encoding."""
        if position is not None:
            raise ValueError(f"position must be None for patchwise self-attention, got {position!r}")
        super().make_position(position, size)

    def mapping_widths(self) -> tuple[int, int, int]:
        """A footprint is mapped at once: the weights of all its taps."""
        taps = self.footprint.taps
        widths = {"concatenation": (taps + 1) * self.relation_channels, "star": taps, "clique": taps * taps}
        return widths[self.relation], self.weight_channels, taps * self.weight_channels

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """δ, γ and the aggregation."""
        kernel_size, stride, dilation, padding_mode = self.footprint
        geometry = (stride, dilation, padding_mode)
        relation = patchwise_relation(query, key, kernel_size, self.relation, *geometry)
        weight = self.mapping(relation).flatten(2).unflatten(1, (self.weight_channels, self.footprint.taps))
        return aggregation(value, weight, kernel_size, *geometry)
