"""A frozen norm and a ReLU in one pass over a map, channels last."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .backend import choose
from .native import native_gradient

CACHE_BYTES = 2**20  # of a processor's second-level cache, for the result of affine_relu


def affine_relu(features: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    r"""Scales and shifts every channel, then applies a ReLU: :math:`\max(s_c x_c + t_c, 0)`. Not differentiable.

    Args:
        features: x, (N, H, W, C): channels last.
        scale: s, (C,); float32, or float64 for features in float64.
        shift: t, like ``scale``.

    Returns:
        A new tensor of the shape and dtype of ``features``, contiguous.

    Example:
        >>> affine_relu(torch.ones(1, 1, 1, 2), torch.tensor([2.0, 2.0]), torch.tensor([1.0, -3.0]))
        tensor([[[[3., 0.]]]])
    """
    if features.device.type == "cpu" and choose(features.device) == "native":
        return _native_affine_relu(features, scale, shift)
    return torch.addcmul(shift, features, scale).relu_().to(features.dtype)


def affine_relu_linear(features: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r"""A linear layer after :func:`affine_relu`, in pieces that the cache holds. Not differentiable.

    .. math:: y_d = b_d + \textstyle\sum_c \max(s_c x_c + t_c, 0) \, w_{cd}

    Args:
        features: x, (N, H, W, C): channels last, contiguous.
        scale: s, (C,); float32, or float64 for features in float64.
        shift: t, like ``scale``.
        weight: w, (C, D); dtype of ``features``.
        bias: b, (D,); dtype of ``features``.

    Returns:
        (N, H, W, D).

    Example:
        >>> two, identity = torch.full((2,), 2.0), torch.eye(2)
        >>> affine_relu_linear(torch.ones(1, 1, 1, 2), two, two, identity, torch.ones(2))
        tensor([[[[5., 5.]]]])
    """
    if features.device.type != "cpu" or torch.compiler.is_compiling():
        result = torch.addmm(bias, affine_relu(features, scale, shift).flatten(0, 2), weight)
        return result.view(*features.shape[:3], -1)
    pixels = features.view(1, 1, -1, features.shape[3])
    result = features.new_empty(pixels.shape[2], weight.shape[1])
    rows = max(CACHE_BYTES * torch.get_num_threads() // (features.shape[3] * features.element_size()), 1)
    for piece, to in zip(pixels.split(rows, dim=2), result.split(rows), strict=True):
        torch.addmm(bias, affine_relu(piece, scale, shift)[0, 0], weight, out=to)
    return result.view(*features.shape[:3], -1)


def _fake_affine_relu(features: Tensor, *_: Any) -> Tensor:
    return features.new_empty(features.shape)


_native_affine_relu = native_gradient("affine_relu", _fake_affine_relu)
