"""What both attentions fold: norms into the linear layers beside them, in double precision."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...layers.self_attention import SelfAttention


class Affine(NamedTuple):
    """``scale * x + shift`` for every channel."""

    scale: Tensor
    shift: Tensor


class Layer(NamedTuple):
    """A linear layer: weight (out, in) and bias (out,)."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, module: Any) -> Layer:
        """The layer of a 1x1 convolution."""
        weight = _double(module.weight).flatten(1)
        return cls(weight, weight.new_zeros(len(weight)) if module.bias is None else _double(module.bias))

    def then(self, affine: Affine) -> Layer:
        """The layer, then an affine map of its outputs."""
        return Layer(self.weight * affine.scale.unsqueeze(1), self.bias * affine.scale + affine.shift)

    def reading(self, order: Tensor) -> Layer:
        """The layer for inputs in another order."""
        return Layer(self.weight[:, order], self.bias)

    def joined(self, *others: Layer) -> Layer:
        """The outputs of several layers, one after another."""
        return Layer(*map(torch.cat, zip(self, *others, strict=True)))


def affine_of(norm: Any, channels: int) -> Affine:
    """A frozen norm, or ``nn.Identity``, as an affine map.

    Example:
        >>> norm = nn.BatchNorm2d(1, eps=0.0).eval()
        >>> _ = nn.init.constant_(norm.running_mean, 3.0)
        >>> affine_of(norm, 1).shift.item()
        -3.0
    """
    if isinstance(norm, nn.Identity):
        return Affine(torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64))
    weight, bias, mean, variance = map(_double, (norm.weight, norm.bias, norm.running_mean, norm.running_var))
    scale = weight / (variance + norm.eps).sqrt()
    return Affine(scale, bias - mean * scale)


def fold_mapping(mapping: Any) -> tuple[Affine, list[Layer]]:
    """The first norm of a mapping, and its linear layers with the norms between them folded in."""
    norms, modules = mapping[::3], mapping[2::3]
    layers = [Layer.of(module) for module in modules]
    affines = [affine_of(norm, module.in_channels) for norm, module in zip(norms, modules, strict=True)]
    folded = [layer.then(affine) for layer, affine in zip(layers[:-1], affines[1:], strict=True)]
    return affines[0], [*folded, layers[-1]]


def transforms_of(layer: SelfAttention) -> tuple[Layer, Layer, Layer]:
    """φ, ψ and β as three layers, also if they share parameters."""
    query = Layer.of(layer.query)
    key = query if layer.shared_transforms is not None else Layer.of(layer.key)
    value = query if layer.shared_transforms == "all" else Layer.of(layer.value)
    return query, key, value


def by_weight(channels: list[int]) -> Tensor:
    """The value's channels in an order in which those with the same weight, c mod Cw, are neighbours.

    Args:
        channels: Of query and key, value, and weights.

    Example:
        >>> by_weight([1, 6, 3]).tolist()
        [0, 3, 1, 4, 2, 5]
    """
    _, value_channels, weight_channels = channels
    return torch.arange(value_channels).view(-1, weight_channels).t().flatten()


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double()
