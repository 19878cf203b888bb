"""Patchwise self-attention (section 3.2 of the paper): the footprint as a whole weighs each of its pixels."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..ops import PATCHWISE_RELATIONS, PatchwiseMapping, aggregation, patchwise_relation
from ..ops.footprint import IntOrPair
from ..ops.patchwise_attention import fused_patchwise_attention, why_no_kernel
from .frozen_mapping import fold_mapping, why_not_frozen
from .self_attention import Attend, SelfAttention


class PatchwiseSelfAttention(SelfAttention):
    r"""Vector attention from the patch under the footprint.

    .. math:: y_i = \sum_{j \in R(i)} \gamma(\delta(x_{R(i)}))_j \odot \beta(x_j)

    Equations 4 and 5 of "Exploring Self-attention for Image Recognition"; no softmax. The arguments are those of
    :class:`SelfAttention`; ``relation`` is 'concatenation' (default), 'star' or 'clique'. There is no position
    encoding: the mapping has weights of its own for every tap.

    In evaluation, where no gradient is needed, one operator computes all of this but φ, ψ and β, with the same result:
    :func:`sa_layers.ops.patchwise_attention`. :meth:`why_not_fused` tells what keeps it away.

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

    def relate(self, query: Tensor, key: Tensor) -> Tensor:
        """δ: (N, D, 1, Ho * Wo), the features of every footprint. A new relation overrides it."""
        kernel_size, stride, dilation, padding_mode = self.footprint
        return patchwise_relation(query, key, kernel_size, self.relation, stride, dilation, padding_mode)

    def map_relation(self, query: Tensor, key: Tensor) -> Tensor:
        """δ and γ: the weights of all taps."""
        weight = self.mapping(self.relate(query, key))
        return weight.flatten(2).unflatten(1, (self.weight_channels, self.footprint.taps))

    def attend_unfused(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """δ, γ and the aggregation."""
        return aggregation(value, self.map_relation(query, key), *self.footprint)

    def fold(self) -> Attend | str:
        """The fused operator with the mapping as :func:`patchwise_attention` takes it."""
        if overridden := self.overrides(PatchwiseSelfAttention):
            return f"{type(self).__name__} has {overridden} of its own"
        if obstacle := why_not_frozen(self.mapping):
            return obstacle
        mapping = self._fold_mapping()
        scale, sizes = mapping.scale, (self.weight_channels, self.footprint.taps, self.out_channels)
        if obstacle := why_no_kernel(scale.device, scale.dtype, *sizes):
            return obstacle
        return partial(fused_patchwise_attention, mapping=mapping, footprint=self.footprint, relation=self.relation)

    def _fold_mapping(self) -> PatchwiseMapping:
        channels, weights, taps = self.relation_channels, self.weight_channels, self.footprint.taps
        scale, shift, hidden_weight, hidden_bias, weight, bias = fold_mapping(self.mapping)

        def by_tap(tensor: Tensor) -> Tensor:
            """(M, R + R * taps), the taps within a channel -> (M, 1 + taps, R); (M, D) -> (M, D, 1)."""
            if self.relation != "concatenation":
                return tensor.unsqueeze(2)
            query, keys = tensor[:, :channels], tensor[:, channels:].unflatten(1, (channels, taps))
            return torch.cat([query.unsqueeze(1), keys.transpose(1, 2)], dim=1)

        scale, shift = by_tap(torch.stack([scale, shift]))
        hidden_weight = by_tap(hidden_weight).permute(1, 2, 0)
        weight, bias = weight.view(weights, taps, weights).permute(2, 1, 0), bias.view(weights, taps).t()
        folded = (scale, shift, hidden_weight, hidden_bias, weight, bias)
        return PatchwiseMapping(*(tensor.contiguous() for tensor in folded))
