"""Patchwise self-attention (section 3.2 of the paper): all weights of a footprint come from the whole footprint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.fx
from torch import Tensor

from ..fused.eligibility import why_not_mapping
from ..fused.evaluation.block import Attend, FusedPatchwiseAttention
from ..fused.evaluation.parameters import Parameters
from ..fused.originals import overridden, replaceable
from ..fused.training.patchwise import PatchwiseTraining
from ..ops import PATCHWISE_RELATIONS, aggregation, patchwise_relation
from ..ops.compiled import with_own_memory
from ..ops.footprint import IntOrPair
from ..ops.patchwise_attention import why_no_kernel
from ..ops.patchwise_training import patchwise_why_not
from .self_attention import CALLED_METHODS, FUSED_METHODS, SelfAttention

# Functions that torch.fx records as they are, where the layer is not recorded as a whole.
torch.fx.wrap("aggregation")
torch.fx.wrap("patchwise_relation")


@replaceable(*FUSED_METHODS, *CALLED_METHODS)
class PatchwiseSelfAttention(SelfAttention):
    r"""Vector attention with weights from the whole footprint.

    .. math:: y_i = \sum_{j \in R(i)} \gamma(\delta(x_{R(i)}))_j \odot \beta(x_j)

    Equations 4 and 5 of "Exploring Self-attention for Image Recognition"; no softmax. The arguments are those of
    :class:`SelfAttention`; ``relation`` is 'concatenation' (default), 'star' or 'clique'. There is no position
    encoding, since the mapping has separate weights for every tap.

    In evaluation without gradients, the operator :func:`sa_layers.ops.patchwise_attention` computes everything after φ,
    ψ and β, with the same result up to rounding. :meth:`why_not_fused` says why it is not used.

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
        """Raise an error for an encoding."""
        if position is not None:
            raise ValueError(f"position must be None for patchwise self-attention, got {position!r}")
        super().make_position(position, size)

    def mapping_widths(self) -> tuple[int, int, int]:
        """Each footprint is mapped to the weights of all its taps."""
        taps = self.footprint.taps
        widths = {"concatenation": (taps + 1) * self.relation_channels, "star": taps, "clique": taps * taps}
        return widths[self.relation], self.weight_channels, taps * self.weight_channels

    def relate(self, query: Tensor, key: Tensor) -> Tensor:
        """δ: (N, D, 1, Ho * Wo), the features of every footprint. Override it for a new relation."""
        kernel_size, stride, dilation, padding_mode = self.footprint
        return patchwise_relation(query, key, kernel_size, self.relation, stride, dilation, padding_mode)

    def map_relation(self, query: Tensor, key: Tensor) -> Tensor:
        """δ and γ: the weights of all taps."""
        weight = self.mapping(with_own_memory(self.relate(query, key)))
        return with_own_memory(weight.flatten(2).unflatten(1, (self.weight_channels, self.footprint.taps)))

    def attend_unfused(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """δ, γ and the aggregation."""
        return aggregation(value, self.map_relation(query, key), *self.footprint)

    def why_not_eligible(self, training: bool = False) -> str | None:
        """One sentence on why the fused operator cannot replace the layer: overrides, mapping or sizes; or None."""
        if obstacle := self.why_not_foldable((2,), training):
            return obstacle
        weight: Any = self.mapping[2].weight
        sizes = (self.relation_channels, self.out_channels, self.weight_channels)
        if training:
            return patchwise_why_not(weight.dtype, *sizes, self.footprint, self.relation)
        return why_no_kernel(weight.device, weight.dtype, *sizes, self.footprint, self.relation)

    def why_not_foldable(self, layers: Sequence[int], training: bool = False) -> str | None:  # noqa: D102 - in the base
        if method := overridden(self, FUSED_METHODS, PatchwiseSelfAttention):
            return f"{type(self).__name__} overrides {method}"
        return why_not_mapping(self.mapping, layers, training)

    def plan_attend(self, parameters: Parameters) -> Attend:
        """Return the fused operator with its operands."""
        return FusedPatchwiseAttention(self.plan_mapping(parameters), self.footprint, self.relation)

    def plan_training(self) -> PatchwiseTraining:
        """Return the attention in training."""
        mapping = self.mapping
        return PatchwiseTraining(self.footprint, self.relation, *self.training_norms(), (mapping[2], mapping[5]))
