"""Pairwise self-attention (section 3.1 of the paper): each neighbour is weighed by its relation to the centre."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops import PAIRWISE_RELATIONS, pairwise_relation, softmax_aggregation
from .position import PositionEncoding
from .self_attention import SelfAttention


class PairwiseSelfAttention(SelfAttention):
    r"""Vector attention from the relation of each pair of pixels.

    .. math:: y_i = \sum_{j \in R(i)} \operatorname{softmax}_j(\gamma([\delta(x_i, x_j), p_i - p_j])) \odot \beta(x_j)

    Equations 2 and 3 of "Exploring Self-attention for Image Recognition", with the softmax over the footprint and the
    normalised mapping of the official network. The arguments are those of :class:`SelfAttention`; ``relation`` is
    'subtraction' (default), 'summation', 'hadamard', 'dot' or 'concatenation'.

    Shapes:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))

    Example:
        >>> layer = PairwiseSelfAttention(64, 64, kernel_size=7)
        >>> layer(torch.randn(2, 64, 14, 14)).shape
        torch.Size([2, 64, 14, 14])
    """

    relations = PAIRWISE_RELATIONS
    default_position = "relative"

    def make_position(self, position: str | None) -> PositionEncoding | None:
        """The encoding that is concatenated to the relation."""
        return None if position is None else PositionEncoding(position)

    def mapping_widths(self) -> tuple[int, int, int]:
        """A pair is mapped alone: the weights of one tap."""
        channels = self.relation_channels
        relation = {"dot": 1, "concatenation": 2 * channels}.get(self.relation, channels)
        position = self.position.channels if isinstance(self.position, PositionEncoding) else 0
        return relation + position, channels, self.weight_channels

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """δ, γ, the softmax and the aggregation."""
        kernel_size, stride, dilation, padding_mode = self.footprint
        geometry = (stride, dilation, padding_mode)
        relation = pairwise_relation(query, key, kernel_size, self.relation, *geometry)
        if self.position is not None:
            position = self.position(query, kernel_size, *geometry)
            relation = torch.cat([relation, position.expand(relation.shape[0], -1, -1, -1)], dim=1)
        return softmax_aggregation(value, self.mapping(relation), kernel_size, *geometry)
