"""The stem of a network in one pass: a linear layer, 2x2 max-pooling and a ReLU."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .backend import choose, devices_of
from .native import native_operator


def pooled_projection(image: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
    r"""Apply a linear layer to every pixel, then 2x2 max-pooling and a ReLU. Not differentiable.

    .. math:: y_{c,i} = \max(0,\; t_c + \max_{j \in 2 \times 2} \textstyle\sum_k w_{kc} \, x_{k,j})

    A norm after the linear layer must be part of ``weight`` and ``shift``: max-pooling commutes with a ReLU and a
    shift, but not with a negative scale. The output of the linear layer, the largest map of the network, is never
    written.

    Args:
        image: x, (N, K, H, W); an odd last row or column is dropped.
        weight: w, (K, C); float32, or float64 for an image in float64.
        shift: t, (C,), as ``weight``.

    Returns:
        (N, H // 2, W // 2, C), channels last, in the dtype of ``image``.

    Example:
        >>> import torch
        >>> pooled_projection(torch.arange(4.0).view(1, 1, 2, 2), torch.tensor([[1.0, -1.0]]), torch.zeros(2))
        tensor([[[[3., 0.]]]])
    """
    if image.device.type in _native_devices and choose(image.device) == "native":
        return native_pooled_projection(image, weight, shift)
    projected = F.conv2d(image, weight.t()[:, :, None, None].to(image.dtype), shift.to(image.dtype))
    return F.max_pool2d(projected, 2).relu_().permute(0, 2, 3, 1).contiguous()


def _fake_pooled_projection(image: Tensor, weight: Tensor) -> Tensor:
    return image.new_empty(image.shape[0], image.shape[2] // 2, image.shape[3] // 2, weight.shape[1])


native_pooled_projection = native_operator("pooled_projection", _fake_pooled_projection)
_native_devices = devices_of("pooled_projection")
