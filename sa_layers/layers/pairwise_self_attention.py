"""Pairwise self-attention (section 3.1 of the paper): each neighbour is weighed by its relation to the centre."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..ops import (
    PAIRWISE_RELATIONS,
    Mapping,
    PairPosition,
    pairwise_relation,
    softmax_aggregation,
)
from ..ops.footprint import IntOrPair
from ..ops.pairwise_attention import fused_pairwise_attention, why_no_kernel
from ..ops.pairwise_relation import relation_width
from .evaluation import is_pointwise, is_watched
from .frozen_mapping import fold_mapping, why_not_frozen
from .position import PositionEncoding
from .self_attention import Attend, SelfAttention


class PairwiseSelfAttention(SelfAttention):
    r"""Vector attention from the relation of each pair of pixels.

    .. math:: y_i = \sum_{j \in R(i)} \operatorname{softmax}_j(\gamma([\delta(x_i, x_j), p_i - p_j])) \odot \beta(x_j)

    Equations 2 and 3 of "Exploring Self-attention for Image Recognition", with the softmax over the footprint and the
    normalised mapping of the official network. The arguments are those of :class:`SelfAttention`; ``relation`` is
    'subtraction' (default), 'summation', 'hadamard', 'dot' or 'concatenation'.

    In evaluation, where no gradient is needed, one operator computes all of this but φ, ψ and β, with the same result:
    :func:`sa_layers.ops.pairwise_attention`. :meth:`why_not_fused` tells what keeps it away.

    Shapes:
        (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))

    Example:
        >>> layer = PairwiseSelfAttention(64, 64, kernel_size=7)
        >>> layer(torch.randn(2, 64, 14, 14)).shape
        torch.Size([2, 64, 14, 14])
    """

    relations = PAIRWISE_RELATIONS
    default_position = "relative"

    def make_position(self, position: str | None, size: IntOrPair | None) -> PositionEncoding | None:
        """The encoding that is concatenated to the relation."""
        if position is not None:
            return PositionEncoding(position, size)
        super().make_position(position, size)
        return None

    def mapping_widths(self) -> tuple[int, int, int]:
        """A pair is mapped alone: the weights of one tap."""
        position = self.position.channels if isinstance(self.position, PositionEncoding) else 0
        width = relation_width(self.relation, self.relation_channels) + position
        return width, self.relation_channels, self.weight_channels

    def relate(self, query: Tensor, key: Tensor) -> Tensor:
        """δ: (N, D, Kh * Kw, Ho * Wo), the features of every pair. A new relation overrides it."""
        kernel_size, stride, dilation, padding_mode = self.footprint
        return pairwise_relation(query, key, kernel_size, self.relation, stride, dilation, padding_mode)

    def map_relation(self, query: Tensor, key: Tensor) -> Tensor:
        """δ with its position encoding, and γ: the logits of the softmax."""
        relation = self.relate(query, key)
        if self.position is not None:
            position = self.position(query, *self.footprint)
            relation = torch.cat([relation, position.expand(relation.shape[0], -1, -1, -1)], dim=1)
        if relation.is_cuda and relation.requires_grad:
            # A norm's kernel has a block of threads for each of these few channels, unless they lie side by side.
            return self.mapping(relation.contiguous(memory_format=torch.channels_last)).contiguous()
        return self.mapping(relation)

    def attend_unfused(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """δ, γ, the softmax and the aggregation."""
        return softmax_aggregation(value, self.map_relation(query, key), *self.footprint)

    def weights(self, features: Tensor) -> Tensor:  # noqa: D102 - the base's
        return super().weights(features).softmax(2)

    def fold(self) -> Attend | str:
        """The fused operator with the mapping of :func:`fold_mapping`, and the two matrices of the position."""
        if overridden := self.overrides(PairwiseSelfAttention):
            return f"{type(self).__name__} has {overridden} of its own"
        if obstacle := self._why_not_usual() or why_not_frozen(self.mapping, layers=(1, 2, 3)):
            return obstacle
        scale, shift, *layers = fold_mapping(self.mapping)
        if obstacle := why_no_kernel(scale.device, self.mapping_widths(), self.out_channels):
            return obstacle
        return partial(
            fused_pairwise_attention,
            mapping=Mapping(scale, shift, layers[::2], layers[1::2]),
            footprint=self.footprint,
            relation=self.relation,
            position=self._fold_position(scale.dtype),
        )

    def _why_not_usual(self) -> str | None:
        """What keeps the position encoding from being two affine maps."""
        if self.position is None:
            return None
        if type(self.position) is not PositionEncoding:
            return "the position encoding is not the usual one"
        transform = self.position.transform
        if not is_pointwise(transform) or transform.bias is None:
            return "the linear layer of the position encoding is not the usual one"
        if is_watched(self.position) or is_watched(transform):
            return "a hook watches the position encoding"
        return None

    def _fold_position(self, dtype: torch.dtype) -> PairPosition | None:
        if not isinstance(self.position, PositionEncoding):
            return None
        linear: Any = self.position.transform
        here = torch.cat([linear.weight.flatten(1), linear.bias.unsqueeze(1)], dim=1).to(dtype)
        if self.position.position == "relative":
            return PairPosition(here, -here, self.position.size)
        nothing = torch.zeros_like(here)
        return PairPosition(torch.cat([here, nothing]), torch.cat([nothing, here]), self.position.size)
