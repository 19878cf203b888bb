"""A frozen norm and a ReLU in one pass over a channels-last map."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .backend import choose, devices_of
from .native import native_operator


class AffineReLU(NamedTuple):
    """``relu(scale * x + shift)`` for every channel: a frozen norm and its ReLU, before or after an operator.

    Args:
        scale: (C,); float32, or float64 beside features in float64.
        shift: As ``scale``.
    """

    scale: Tensor
    shift: Tensor


def affine_relu(features: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    r"""Scale and shift every channel, then apply a ReLU: :math:`\max(s_c x_c + t_c, 0)`. Not differentiable.

    Args:
        features: x, (N, H, W, C): channels last.
        scale: s, (C,); float32, or float64 for features in float64.
        shift: t, as ``scale``.

    Returns:
        A new tensor of the shape and dtype of ``features``, contiguous.

    Example:
        >>> affine_relu(torch.ones(1, 1, 1, 2), torch.tensor([2.0, 2.0]), torch.tensor([1.0, -3.0]))
        tensor([[[[3., 0.]]]])
    """
    native = features.device.type in _native_devices and choose(features.device) == "native"
    return (native_affine_relu if native else affine_relu_in_torch)(features, scale, shift)


def affine_relu_in_torch(features: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Compute :func:`affine_relu` in plain torch."""
    return torch.addcmul(shift, features, scale).relu_().to(features.dtype)


def affine_relu_(features: Tensor, scale: Tensor, shift: Tensor) -> None:
    """Compute :func:`affine_relu` in place.

    Example:
        >>> features = torch.ones(1, 1, 1, 2)
        >>> affine_relu_(features, torch.tensor([2.0, 2.0]), torch.tensor([1.0, -3.0]))
        >>> features
        tensor([[[[3., 0.]]]])
    """
    native = features.device.type in _native_devices and choose(features.device) == "native"
    if native and features.is_contiguous():
        native_affine_relu_(features, scale, shift)
    else:
        features.copy_(affine_relu(features, scale, shift))


def _fake_affine_relu(features: Tensor) -> Tensor:
    return features.new_empty(features.shape)


native_affine_relu = native_operator("affine_relu", _fake_affine_relu)
native_affine_relu_ = native_operator("affine_relu_", lambda: None)
_native_devices = devices_of("affine_relu")
