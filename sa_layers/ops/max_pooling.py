"""The maximum of every 2x2 pixels, channels last."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from .affine_relu import affine_relu
from .backend import choose, devices_of
from .native import native_gradient


def max_pooling(features: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """Takes the maximum of every 2x2 pixels; what is not a number is greater than any. Not differentiable.

    Args:
        features: (N, H, W, C), channels last; an odd last row or column is dropped.
        scale: (C,), of a frozen norm that is followed by a ReLU, both before the pooling; as :func:`affine_relu` takes
            it. Defaults to None, for neither.
        shift: Like ``scale``.

    Returns:
        (N, H // 2, W // 2, C), contiguous.

    Example:
        >>> import torch
        >>> max_pooling(torch.arange(8.0).view(1, 2, 2, 2))
        tensor([[[[6., 7.]]]])
    """
    if features.device.type in _native_devices and choose(features.device) == "native":
        return _native_max_pooling(features, scale, shift)
    if scale is not None and shift is not None:
        features = affine_relu(features, scale, shift)
    return F.max_pool2d(features.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


def _fake_max_pooling(features: Tensor, *_: Any) -> Tensor:
    batch, height, width, channels = features.shape
    return features.new_empty(batch, height // 2, width // 2, channels)


_native_max_pooling = native_gradient("max_pooling", _fake_max_pooling)
_native_devices = devices_of("max_pooling")
