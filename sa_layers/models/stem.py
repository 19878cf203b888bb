"""The stem of a self-attention network: a linear layer on the pixels of the image, norm and activation."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..layers.evaluation import affine, why_not_passed_over
from ..layers.folding import FoldingModule


class FoldedStem(NamedTuple):
    """A linear layer and its frozen norm as :func:`sa_layers.ops.pooled_projection.pooled_projection` takes them."""

    weight: Tensor
    """(in_channels, channels)."""
    shift: Tensor
    """(channels,)."""


class Stem(FoldingModule[FoldedStem], nn.Sequential):
    """Linear layer, norm and activation, in this order.

    Args:
        *modules: The three.
    """

    def fold(self) -> FoldedStem | str:
        """The stem and the first stage's 2x2 pooling for one operator."""
        modules: list[Any] = list(self)
        if len(modules) != 3:
            return "the stem has not three modules"
        linear, norm, activation = modules
        if obstacle := why_not_passed_over(norms=[norm], activations=[activation], linear=[linear], around=[self]):
            return obstacle
        scale, shift = affine(norm)
        shift = shift if linear.bias is None else torch.addcmul(shift, scale, linear.bias)
        return FoldedStem((linear.weight.flatten(1) * scale.unsqueeze(1)).t().contiguous(), shift)
