"""The maximum of every 2x2 pixels, channels last."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .affine_relu import affine_relu
from .backend import choose, devices_of
from .native import native_operator


def max_pooling(features: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """Take the maximum of every 2x2 pixels, NaN if one of them is NaN. Not differentiable.

    Args:
        features: (N, H, W, C), channels last; an odd last row or column is dropped.
        scale: (C,), of a frozen norm and its ReLU before the pooling; see :class:`AffineReLU`. Defaults to None, for
            neither.
        shift: As ``scale``.

    Returns:
        (N, H // 2, W // 2, C), contiguous.

    Example:
        >>> import torch
        >>> max_pooling(torch.arange(8.0).view(1, 2, 2, 2))
        tensor([[[[6., 7.]]]])
    """
    if features.device.type in native_devices and choose(features.device) == "native":
        return native_max_pooling(features, scale, shift)
    return max_pooling_unfused(features, scale, shift)


def max_pooling_unfused(features: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """Compute :func:`max_pooling` by :func:`affine_relu` and torch's pooling."""
    if scale is not None and shift is not None:
        features = affine_relu(features, scale, shift)
    return F.max_pool2d(features.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


def _fake_max_pooling(features: Tensor) -> Tensor:
    batch, height, width, channels = features.shape
    return features.new_empty(batch, height // 2, width // 2, channels)


native_max_pooling = native_operator("max_pooling", _fake_max_pooling)
native_devices = devices_of("max_pooling")
