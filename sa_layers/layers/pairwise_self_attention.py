"""Pairwise self-attention (section 3.1 of the paper): each neighbour is weighed by its relation to the centre."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops import (
    PAIRWISE_RELATIONS,
    Epilogue,
    Mapping,
    PairPosition,
    pairwise_attention,
    pairwise_relation,
    softmax_aggregation,
    why_not_fused,
)
from ..ops.footprint import IntOrPair
from ..ops.pairwise_attention import why_no_kernel
from .evaluation import conclude
from .frozen_mapping import fold_mapping, is_watched, mapping_tensors, why_not_frozen
from .position import PositionEncoding
from .self_attention import SelfAttention


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
        channels = self.relation_channels
        relation = {"dot": 1, "concatenation": 2 * channels}.get(self.relation, channels)
        position = self.position.channels if isinstance(self.position, PositionEncoding) else 0
        return relation + position, channels, self.weight_channels

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
        return self.mapping(relation)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, epilogue: Epilogue | None = None) -> Tensor:
        """δ, γ, the softmax and the aggregation."""
        if self.why_not_fused(query, key, value) is None:
            return self._attend_fused(query, key, value, epilogue)
        return conclude(softmax_aggregation(value, self.map_relation(query, key), *self.footprint), epilogue)

    def weights(self, features: Tensor) -> Tensor:  # noqa: D102 - the base's
        return super().weights(features).softmax(2)

    def why_not_fused(self, query: Tensor, key: Tensor, value: Tensor) -> str | None:
        """One sentence on what keeps :meth:`attend` from the fused operator for these operands, or None.

        Example:
            >>> features = torch.zeros(1, 8, 5, 5)
            >>> PairwiseSelfAttention(8, 8, 3).why_not_fused(features, features, features)
            'mapping.0 is in training mode'
        """
        if overridden := self.overrides(PairwiseSelfAttention):
            return f"{type(self).__name__} has {overridden} of its own"
        if obstacle := why_no_kernel(query.device, self.mapping_widths(), value.shape[1]):
            return obstacle
        if self.position is not None:
            if type(self.position) is not PositionEncoding:
                return "the position encoding is not the usual one"
            transform = self.position.transform
            if type(transform) is not nn.Conv2d or transform.bias is None:
                return "the linear layer of the position encoding is not the usual one"
            if is_watched(self.position) or is_watched(transform):
                return "a hook watches the position encoding"
        refusal = why_not_frozen(self.mapping, layers=(1, 2, 3))
        return refusal or why_not_fused([query, key, value, *self._tensors_of_attention()])

    def _attend_fused(self, query: Tensor, key: Tensor, value: Tensor, epilogue: Epilogue | None) -> Tensor:
        scale, shift, *layers = self._folded(self._tensors_of_attention())
        position = None
        if isinstance(self.position, PositionEncoding):
            *layers, here, there = layers
            position = PairPosition(here, there, self.position.size)
        mapping = Mapping(scale, shift, layers[::2], layers[1::2])
        kernel_size, stride, dilation, padding_mode = self.footprint
        geometry = (kernel_size, self.relation, stride, dilation, padding_mode)
        return pairwise_attention(query, key, value, mapping, *geometry, position=position, epilogue=epilogue)

    def _tensors_of_attention(self) -> list[Tensor]:
        """The parameters and statistics that :meth:`attend` computes with."""
        tensors = mapping_tensors(self.mapping)
        if isinstance(self.position, PositionEncoding):
            tensors += [tensor for tensor in self.position.transform._parameters.values() if tensor is not None]
        return tensors

    def _fold(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The mapping as :func:`fold_mapping` gives it, and the two matrices of the position."""
        if self.position is None:
            return fold_mapping(self.mapping, *tensors)
        *of_mapping, weight, bias = tensors
        folded = fold_mapping(self.mapping, *of_mapping)
        here = torch.cat([weight.flatten(1), bias.unsqueeze(1)], dim=1).to(folded[0].dtype)
        if self.position.position == "relative":
            return *folded, here, -here
        nothing = torch.zeros_like(here)
        return *folded, torch.cat([here, nothing]), torch.cat([nothing, here])
