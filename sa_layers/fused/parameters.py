"""Values for the fused operators, computed from the parameters of eligible modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..ops import AffineReLU, PairPosition, PairwiseMapping, PatchwiseMapping
from ..ops.projection import Linear, pack
from .eligibility import NORMS


def fold_norm(norm: nn.Module) -> AffineReLU:
    """The scale and the shift of a frozen norm, (C,) each; float32, or float64 for float64."""
    assert isinstance(norm, NORMS)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    dtype = torch.promote_types(norm.weight.dtype, torch.float32)
    scale = norm.weight.to(dtype) * torch.rsqrt(norm.running_var.to(dtype) + norm.eps)
    return AffineReLU(scale, norm.bias.to(dtype) - norm.running_mean.to(dtype) * scale)


def fold_linear(layers: Sequence[nn.Conv2d]) -> Linear:
    """One linear layer that computes the outputs of several 1x1 convolutions, one after the other."""
    weight = torch.cat([layer.weight.flatten(1) for layer in layers])
    zeros = weight.new_zeros(weight.shape[0])
    bias = torch.cat([zeros[: layer.out_channels] if layer.bias is None else layer.bias for layer in layers])
    return pack(weight.t(), bias)


def fold_mapping(mapping: Any) -> tuple[Tensor, ...]:
    """The affine map and the linear layers of a mapping γ with frozen norms.

    Args:
        mapping: An eligible mapping, from D to P channels.

    Returns:
        Scale and shift of the first norm, (D,), then for each linear layer the weight (out, in) and the bias (out,),
        each followed norm multiplied in; the last has P outputs. In float32, or float64 for float64.
    """
    folded: list[Tensor] = []
    for norm, linear in zip(mapping[::3], mapping[2::3], strict=True):
        scale, shift = fold_norm(norm)
        if folded:
            folded[-2:] = [folded[-2] * scale.unsqueeze(1), folded[-1] * scale + shift]
        else:
            folded = [scale, shift]
        weight = linear.weight.detach().to(scale.dtype).flatten(1)
        bias = weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.detach().to(scale.dtype)
        folded += [weight, bias]
    return tuple(folded)


def fold_pairwise_mapping(mapping: nn.Module) -> PairwiseMapping:
    """An eligible mapping as :func:`sa_layers.ops.pairwise_attention` takes it."""
    scale, shift, *layers = fold_mapping(mapping)
    return PairwiseMapping(scale, shift, layers[::2], layers[1::2])


def fold_patchwise_mapping(mapping: nn.Module, relation: str, channels: int, weight_channels: int) -> PatchwiseMapping:
    """An eligible mapping as :func:`sa_layers.ops.patchwise_attention` takes it.

    Args:
        mapping: From the relation to ``weight_channels`` hidden channels to ``weight_channels`` for each tap.
        relation: 'concatenation', 'star' or 'clique'.
        channels: R, of query and key.
        weight_channels: Cw.
    """
    scale, shift, hidden_weight, hidden_bias, weight, bias = fold_mapping(mapping)

    def by_tap(tensor: Tensor) -> Tensor:
        """(M, R + R * taps), the taps within a channel -> (M, 1 + taps, R); (M, D) -> (M, D, 1)."""
        if relation != "concatenation":
            return tensor.unsqueeze(2)
        query, keys = tensor[:, :channels], tensor[:, channels:].unflatten(1, (channels, -1))
        return torch.cat([query.unsqueeze(1), keys.transpose(1, 2)], dim=1)

    scale, shift = by_tap(torch.stack([scale, shift]))
    hidden_weight = by_tap(hidden_weight).permute(1, 2, 0)
    weight = weight.view(weight_channels, -1, weight_channels).permute(2, 1, 0)
    bias = bias.view(weight_channels, -1).t()
    folded = (scale, shift, hidden_weight, hidden_bias, weight, bias)
    return PatchwiseMapping(*(tensor.contiguous() for tensor in folded))


def fold_position(linear: Any, position: str, size: tuple[int, int] | None, dtype: torch.dtype) -> PairPosition:
    """A position encoding as two affine maps of coordinates.

    Args:
        linear: The encoding's 1x1 convolution, with a bias.
        position: 'relative' or 'absolute'.
        size: The map across which coordinates run from -1 to 1, or None for the map at hand.
        dtype: Of the mapping.
    """
    matrix = torch.cat([linear.weight.flatten(1), linear.bias.unsqueeze(1)], dim=1).to(dtype)
    if position == "relative":
        return PairPosition(matrix, -matrix, size)
    zeros = torch.zeros_like(matrix)
    return PairPosition(torch.cat([matrix, zeros]), torch.cat([zeros, matrix]), size)
