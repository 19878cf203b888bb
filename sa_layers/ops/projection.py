"""A linear layer of every pixel with the frozen norms around it, in one pass over the map, channels last."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .affine_relu import affine_relu
from .native import native_gradient
from .pairwise_attention import Epilogue

PANEL = 32  # output channels that the kernel computes at once


class Linear(NamedTuple):
    """A linear layer as :func:`project` takes it: made by :func:`pack`."""

    weight: Tensor
    """(C, D), or for the native kernel (panels, C, 32): columns in panels, zeros behind the last."""
    bias: Tensor
    """(D,) or (panels * 32,)."""


def pack(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """Arranges a layer's parameters for the device and the dtype that they have.

    Args:
        weight: (C, D).
        bias: (D,). Defaults to None, for zeros.

    Example:
        >>> pack(torch.ones(3, 40, dtype=torch.float64)).weight.shape
        torch.Size([3, 40])
    """
    bias = weight.new_zeros(weight.shape[1]) if bias is None else bias
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or torch.compiler.is_compiling():
        return Linear(weight.contiguous(), bias)
    padding = (0, -weight.shape[1] % PANEL)
    panels = F.pad(weight, padding).unflatten(1, (-1, PANEL)).transpose(0, 1)
    return Linear(panels.contiguous(), F.pad(bias, padding))


def project(features: Tensor, linear: Linear, channels: int, before: Epilogue | None = None) -> Tensor:
    r"""A linear layer of every pixel. Not differentiable.

    .. math:: y_d = b_d + \textstyle\sum_c \max(s_c x_c + t_c, 0) \, w_{cd}

    Args:
        features: x, (N, H, W, C): channels last.
        linear: w and b, for C and D = ``channels``.
        channels: D.
        before: s and t, (C,), a frozen norm that is followed by a ReLU; float32, or float64 for features in float64.
            Defaults to None, for neither.

    Returns:
        (N, H, W, D); the pixels may be more than D elements apart.

    Example:
        >>> two, identity = torch.full((2,), 2.0), torch.eye(2)
        >>> project(torch.ones(1, 1, 1, 2), pack(identity, torch.ones(2)), 2, Epilogue(two, two))
        tensor([[[[5., 5.]]]])
    """
    if linear.weight.dim() == 2:
        pixels = features if before is None else affine_relu(features, *before)
        result = torch.addmm(linear.bias, pixels.flatten(0, 2), linear.weight)
    else:
        result = features.new_empty(features.shape[:3].numel(), len(linear.bias))
        none = (None, None)
        _native_projection(features.flatten(0, 2), linear.weight, linear.bias, *(before or none), *none, result)
    return result.view(*features.shape[:3], len(linear.bias))[..., :channels]


def add_projection(features: Tensor, linear: Linear, to: Tensor, after: Epilogue | None = None) -> None:
    """Adds a linear layer of every pixel to a map in place, but for the bias. Not differentiable.

    Args:
        features: (N, H, W, C): channels last.
        linear: The layer, from C to D channels; its bias is passed over.
        to: (N, H, W, D), contiguous.
        after: A frozen norm for the sum, (D,) each, that is followed by a ReLU. Defaults to None, for neither.

    Example:
        >>> to = torch.ones(1, 1, 1, 2)
        >>> add_projection(torch.ones(1, 1, 1, 2), pack(-2 * torch.eye(2)), to)
        >>> to
        tensor([[[[-1., -1.]]]])
    """
    if linear.weight.dim() == 3 and to.shape[3] == len(linear.bias):
        norm = after or (None, None)
        _native_projection(features.flatten(0, 2), linear.weight, None, None, None, *norm, to.flatten(0, 2))
        return
    if linear.weight.dim() == 3:
        to += project(features, linear._replace(bias=torch.zeros_like(linear.bias)), to.shape[3])
    else:
        to.flatten(0, 2).addmm_(features.flatten(0, 2), linear.weight)
    if after is not None:
        to.copy_(affine_relu(to, *after))


_native_projection = native_gradient("projection", lambda *_: None)
