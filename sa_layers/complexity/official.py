"""Multiply-adds by the rules of the official code, which give the published 2.2 G of SAN10.

A multiply-add of a convolution or linear layer counts as one operation. Activations and pooling count one operation for
each input element, normalisation two if it is affine, and relations one for each product or difference. Softmax,
residual additions, padding, unfolding and concatenation are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AvgPoolNd, _MaxPoolNd

from ..layers import PairwiseSelfAttention
from ..layers.self_attention import SelfAttention

Count = Callable[[Any, Tensor, Tensor], int]


def multiply_adds(module: nn.Module, features: Tensor, output: Tensor) -> int:
    """Return the multiply-adds of one call of a module, excluding its children.

    Args:
        module: Module that was called.
        features: Its input.
        output: Its output.

    Example:
        >>> import torch
        >>> convolution, image = nn.Conv2d(3, 8, 1, bias=False), torch.ones(1, 3, 5, 5)
        >>> multiply_adds(convolution, image, convolution(image))
        600
    """
    for kind, count in COUNTS:
        if isinstance(module, kind):
            return count(module, features, output)
    return 0


def _convolution(module: nn.Conv2d, _: Tensor, output: Tensor) -> int:
    taps = math.prod(module.kernel_size) * module.in_channels // module.groups
    return output.numel() * (taps + (module.bias is not None))


def _linear(module: nn.Linear, _: Tensor, output: Tensor) -> int:
    return output.numel() * module.in_features


def _norm(module: nn.Module, features: Tensor, _: Tensor) -> int:
    return features.numel() * (2 if getattr(module, "weight", None) is not None else 1)


def _input(_: nn.Module, features: Tensor, __: Tensor) -> int:
    return features.numel()


def _attention(module: SelfAttention, _: Tensor, output: Tensor) -> int:
    """Count relation, relative position and aggregation. The transforms and the mapping are separate modules.

    The official code implements only the subtraction and counts one operation for each element of its output. We apply
    the same rule to the other relations. Concatenation is free.
    """
    taps, pixels = module.footprint.taps, len(output) * math.prod(output.shape[2:])
    products = {"concatenation": 0, "clique": taps * taps}.get(module.relation, taps) * module.relation_channels
    relative = isinstance(module, PairwiseSelfAttention) and getattr(module.position, "position", None) == "relative"
    # The relative positions are computed once for the whole batch.
    return pixels * (products + taps * module.out_channels) + relative * taps * 2 * math.prod(output.shape[2:])


COUNTS: tuple[tuple[type[nn.Module] | tuple[type[nn.Module], ...], Count], ...] = (
    (nn.Conv2d, _convolution),
    (nn.Linear, _linear),
    ((_BatchNorm, nn.GroupNorm, nn.LayerNorm), _norm),
    ((nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU), _input),
    ((_MaxPoolNd, _AvgPoolNd, _AdaptiveAvgPoolNd), _input),
    (SelfAttention, _attention),
)
