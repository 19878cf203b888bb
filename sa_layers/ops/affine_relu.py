"""A frozen norm and a ReLU in one pass over a map, channels last."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .backend import choose, devices_of
from .native import native_gradient


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
    if _is_native(features):
        return _native_affine_relu(features, scale, shift)
    return torch.addcmul(shift, features, scale).relu_().to(features.dtype)


def affine_relu_(features: Tensor, scale: Tensor, shift: Tensor) -> None:
    """As :func:`affine_relu`, in place.

    Example:
        >>> features = torch.ones(1, 1, 1, 2)
        >>> affine_relu_(features, torch.tensor([2.0, 2.0]), torch.tensor([1.0, -3.0]))
        >>> features
        tensor([[[[3., 0.]]]])
    """
    if features.is_contiguous() and _is_native(features):
        _native_affine_relu_(features, scale, shift)
    else:
        features.copy_(affine_relu(features, scale, shift))


def _is_native(features: Tensor) -> bool:
    return features.device.type in _native_devices and choose(features.device) == "native"


def _fake_affine_relu(features: Tensor, *_: Any) -> Tensor:
    return features.new_empty(features.shape)


_native_affine_relu = native_gradient("affine_relu", _fake_affine_relu)
_native_affine_relu_ = native_gradient("affine_relu_", lambda *_: None)
_native_devices = devices_of("affine_relu")
