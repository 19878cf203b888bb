"""Pairwise self-attention (section 3.1 of the paper): each neighbour is weighted by its relation to the centre."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.fx
from torch import Tensor

from ..fused.eligibility import HOOKED, has_hooks, is_pointwise, why_not_linear, why_not_mapping
from ..fused.evaluation.block import Attend, FusedPairwiseAttention
from ..fused.evaluation.parameters import Parameters
from ..fused.originals import overridden, replaceable
from ..fused.training.pairwise import PairwiseTraining, PositionPlan
from ..ops import PAIRWISE_RELATIONS, pairwise_relation, softmax_aggregation
from ..ops.footprint import IntOrPair
from ..ops.pairwise_attention import why_no_kernel
from ..ops.pairwise_relation import relation_width
from ..ops.pairwise_training_operands import PairwiseGeometry, pairwise_why_not
from .position import PositionEncoding
from .self_attention import CALLED_METHODS, FUSED_METHODS, SelfAttention

# Functions that torch.fx records as they are, where the layer is not recorded as a whole.
torch.fx.wrap("pairwise_relation")
torch.fx.wrap("softmax_aggregation")


@replaceable(*FUSED_METHODS, *CALLED_METHODS)
class PairwiseSelfAttention(SelfAttention):
    r"""Vector attention with weights from the relation of each pair of pixels.

    .. math:: y_i = \sum_{j \in R(i)} \operatorname{softmax}_j(\gamma([\delta(x_i, x_j), p_i - p_j])) \odot \beta(x_j)

    Equations 2 and 3 of "Exploring Self-attention for Image Recognition", with the softmax over the footprint and the
    normalised mapping of the official network. The arguments are those of :class:`SelfAttention`; ``relation`` is
    'subtraction' (default), 'summation', 'hadamard', 'dot' or 'concatenation'.

    In evaluation without gradients, the operator :func:`sa_layers.ops.pairwise_attention` computes everything after φ,
    ψ and β, with the same result up to rounding. :meth:`why_not_fused` says why it is not used.

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
        """Make the encoding that is concatenated to the relation."""
        if position is not None:
            return PositionEncoding(position, size)
        super().make_position(position, size)
        return None

    def mapping_widths(self) -> tuple[int, int, int]:
        """Each pair is mapped to the weights of one tap."""
        position = self.position.channels if isinstance(self.position, PositionEncoding) else 0
        width = relation_width(self.relation, self.relation_channels) + position
        return width, self.relation_channels, self.weight_channels

    def relate(self, query: Tensor, key: Tensor) -> Tensor:
        """δ: (N, D, Kh * Kw, Ho * Wo), the features of every pair. Override it for a new relation."""
        kernel_size, stride, dilation, padding_mode = self.footprint
        return pairwise_relation(query, key, kernel_size, self.relation, stride, dilation, padding_mode)

    def map_relation(self, query: Tensor, key: Tensor) -> Tensor:
        """δ, its position encoding and γ: the logits of the softmax."""
        relation = self.relate(query, key)
        if self.position is not None:
            position = self.position(query, *self.footprint)
            relation = torch.cat([relation, position.expand(relation.shape[0], -1, -1, -1)], dim=1)
        if relation.is_cuda is True and relation.requires_grad:
            # torch's batch norm launches only one thread block a channel unless the map is channels last.
            return self.mapping(relation.contiguous(memory_format=torch.channels_last)).contiguous()
        return self.mapping(relation)

    def attend_unfused(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """δ, γ, the softmax and the aggregation."""
        return softmax_aggregation(value, self.map_relation(query, key), *self.footprint)

    def weights(self, features: Tensor) -> Tensor:  # noqa: D102 - documented in the base
        return super().weights(features).softmax(2)

    def why_not_eligible(self, training: bool = False) -> str | None:
        """One sentence on why fused operators cannot replace the layer, or None."""
        if obstacle := self.why_not_foldable((2,) if training else (1, 2, 3), training):
            return obstacle
        layers: Any = self.mapping[2::3]
        weight, widths = layers[0].weight, [layers[0].in_channels, *(layer.out_channels for layer in layers)]
        positions = self.position.channels if isinstance(self.position, PositionEncoding) else 0
        sizes = (self.relation_channels, self.out_channels, widths, positions)
        if training:
            return pairwise_why_not(weight.dtype, *sizes, PairwiseGeometry(self.footprint, self.relation))
        return why_no_kernel(weight.device, weight.dtype, *sizes, self.footprint, self.relation)

    def why_not_foldable(self, layers: Sequence[int], training: bool = False) -> str | None:  # noqa: D102 - in the base
        if method := overridden(self, FUSED_METHODS, PairwiseSelfAttention):
            return f"{type(self).__name__} overrides {method}"
        return self._why_not_position(training) or why_not_mapping(self.mapping, layers, training)

    def plan_attend(self, parameters: Parameters) -> Attend:
        """Return the fused operator with its operands."""
        position = None
        if isinstance(self.position, PositionEncoding):
            encoding = self.position
            position = parameters.add_position(encoding.transform, encoding.position, encoding.size)
        return FusedPairwiseAttention(self.plan_mapping(parameters), self.footprint, self.relation, position)

    def plan_training(self) -> PairwiseTraining:
        """Return the attention in training."""
        position, mapping = None, self.mapping
        if isinstance(self.position, PositionEncoding):
            position = PositionPlan(self.position.transform, self.position.position, self.position.size)
        return PairwiseTraining(
            self.footprint, self.relation, position, *self.training_norms(), (mapping[2], mapping[5])
        )

    def _why_not_position(self, training: bool = False) -> str | None:
        """One sentence on why the position encoding is not two affine maps of coordinates, or None."""
        if self.position is None:
            return None
        if type(self.position) is not PositionEncoding:
            return f"the position encoding is a {type(self.position).__name__}, not a PositionEncoding"
        transform = self.position.transform
        if not is_pointwise(transform) or transform.bias is None:
            return "the linear layer of the position encoding is not a 1x1 convolution with a bias"
        if has_hooks(self.position, training):
            return f"the position encoding {HOOKED}"
        obstacle = why_not_linear(transform, training)
        return obstacle and f"the linear layer of the position encoding {obstacle}"
