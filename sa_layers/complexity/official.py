"""Multiply-adds as the official code counts them: what its published 2.2 G of SAN10 mean.

One multiply-add of a convolution or linear layer counts one, and so does each element of whatever else is counted.
Softmax, residual additions, padding, unfolding and concatenation count nothing.
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
    """What a call of ``module`` itself costs, without its children.

    Args:
        module: The module.
        features: What it was given.
        output: What it returned.

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
    """Relation, relative position and aggregation; the layers around them are modules of their own.

    The official code knows the subtraction only, and counts one for each element of its output. The others follow the
    same rule, and concatenation the one above.
    """
    taps, pixels = module.footprint.taps, len(output) * math.prod(output.shape[2:])
    products = {"concatenation": 0, "clique": taps * taps}.get(module.relation, taps) * module.relation_channels
    relative = isinstance(module, PairwiseSelfAttention) and getattr(module.position, "position", None) == "relative"
    # the map of positions is the same for every image of a batch
    return pixels * (products + taps * module.out_channels) + relative * taps * 2 * math.prod(output.shape[2:])


COUNTS: tuple[tuple[type[nn.Module] | tuple[type[nn.Module], ...], Count], ...] = (
    (nn.Conv2d, _convolution),
    (nn.Linear, _linear),
    ((_BatchNorm, nn.GroupNorm, nn.LayerNorm), _norm),
    ((nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU), _input),
    ((_MaxPoolNd, _AvgPoolNd, _AdaptiveAvgPoolNd), _input),
    (SelfAttention, _attention),
)
