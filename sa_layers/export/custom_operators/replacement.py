"""Blocks and attention layers as custom operators while their model is exported."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from ...fused.eligibility import why_not_linear
from ...fused.evaluation.parameters import Parameters
from ...fused.originals import overridden, why_not_original
from ...layers import PairwiseSelfAttention, PatchwiseSelfAttention, SelfAttentionBlock
from ...layers.self_attention import CALLED_METHODS
from ..substitution import Forward, Substitution
from .nodes import Attention, Projection

LAYERS = (PairwiseSelfAttention, PatchwiseSelfAttention)


def customised(model: nn.Module) -> AbstractContextManager[None]:
    """Inside the ``with`` block, let torch.export record the attentions of a model that have a custom operator as such.

    A residual block is three operators. Norms are folded with the values that they have when the ``with`` block is
    entered.
    """
    return CUSTOM_OPERATORS.applied(model)


def why_not_custom(model: nn.Module) -> dict[str, str]:
    """The attention layers of a model that have no custom operator, by name, each with the reason in a sentence.

    Example:
        >>> why_not_custom(nn.Sequential(PairwiseSelfAttention(8, 8, 3).double().eval()))
        {'0': 'its parameters are torch.float64'}
    """
    return CUSTOM_OPERATORS.obstacles(model)


def why_not_attention(layer: Any) -> str | None:
    """One sentence on why an attention layer has no custom operator, or None.

    Its operator supports what the fused operator of evaluation supports on a CPU, in float32.
    """
    if type(layer) not in LAYERS:
        return f"it is a {type(layer).__name__}"
    if method := overridden(layer, CALLED_METHODS, type(layer)):
        return f"it overrides {method}"
    for transform in layer.transforms():
        if obstacle := why_not_linear(transform):
            return f"a linear layer {obstacle}"
    return why_not_original() or layer.why_not_eligible() or _why_not_weight(layer.query.weight)


def _why_not_block(block: SelfAttentionBlock) -> str | None:
    return block.why_not_eligible() or why_not_attention(block.attention)


def _why_not_weight(weight: Tensor) -> str | None:
    if weight.dtype != torch.float32:
        return f"its parameters are {weight.dtype}"
    return None if weight.device.type == "cpu" else f"its parameters are on {weight.device}"


@torch.no_grad()
def _block(block: SelfAttentionBlock) -> Forward:
    """The block as a function of its input, (N, C, H, W)."""
    parameters = Parameters()
    plan: Any = block.plan(parameters)
    folded = parameters.fold()
    transform = Projection.of(block.attention.transforms(), folded.norms[plan.prologue])
    attention = Attention.of(block.attention, plan.attend, folded, folded.norms[plan.epilogue])
    expansion = Projection.of([block.expansion])

    def forward(features: Tensor) -> Tensor:
        pixels = features.permute(0, 2, 3, 1)
        return expansion(attention(transform(pixels)), pixels).permute(0, 3, 1, 2)

    return forward


@torch.no_grad()
def _layer(layer: Any) -> Forward:
    """The layer as a function of its input, (N, C, H, W)."""
    parameters = Parameters()
    plan: Any = layer.plan_attend(parameters)
    transform = Projection.of(layer.transforms())
    attention = Attention.of(layer, plan, parameters.fold())

    def forward(features: Tensor) -> Tensor:
        return attention(transform(features.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)

    return forward


CUSTOM_OPERATORS = Substitution(_why_not_block, why_not_attention, _block, _layer)
