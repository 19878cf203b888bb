"""Norms of channels-last maps in training: statistics, and the backward pass of norm, ReLU and 2x2 max-pooling.

A norm with batch statistics is ``scale * x + shift`` with scale = gamma / sqrt(variance + eps) and
shift = beta - scale * mean. Its backward pass has two steps. The first sums over all pixels the gradient that arrives
at the norm, d, and d * (x - mean). The second computes the gradient of x, which is linear in d and x:

    k1 * d + k2 * x + k3,  k1 = scale,  k2 = -scale * inverse_deviation^2 * E[d * (x - mean)],
    k3 = -scale * E[d] - k2 * mean.

Maps are (..., C), poolings (N, H, W, C). The native kernels read and write slices of a wider map's channels in place.
Gradients pass a ReLU where its input is positive or NaN, as torch's do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .affine_relu import affine_relu
from .backend import choose, devices_of
from .max_pooling import max_pooling
from .native import native_operator

__all__ = [
    "affine_relu",
    "channel_statistics",
    "mask_and_sum",
    "max_pooling",
    "max_pooling_backward",
    "max_pooling_sums",
    "norm_backward",
]


def channel_statistics(pixels: Tensor) -> Tensor:
    """Compute the mean and the biased variance of every channel over all pixels.

    Both are accurate to about 1e-7 of the deviation even if the mean is thousands of deviations.

    Args:
        pixels: (..., C).

    Returns:
        (2, C), float64: means, variances.

    Example:
        >>> channel_statistics(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
        tensor([[2., 5.],
                [1., 0.]], dtype=torch.float64)
    """
    if _is_native(pixels):
        return native_channel_statistics(pixels)
    return channel_statistics_in_torch(pixels)


def channel_statistics_in_torch(pixels: Tensor) -> Tensor:
    """Compute :func:`channel_statistics` in plain torch."""
    variance, mean = torch.var_mean(pixels.flatten(0, -2).double(), 0, correction=0)
    return torch.stack([mean, variance])


def mask_and_sum(grad: Tensor, pixels: Tensor, scale: Tensor, shift: Tensor, mean: Tensor) -> Tensor:
    """Apply a ReLU's backward pass in place, and sum for that of the norm before it.

    The gradient becomes 0 where ``scale * pixels + shift <= 0``.

    Args:
        grad: The gradient of ``relu(scale * pixels + shift)``, (..., C). Overwritten by that of the ReLU's input, d.
        pixels: x, of the shape and dtype of ``grad``.
        scale: (C,); float32, or float64 for maps in float64.
        shift: As ``scale``.
        mean: (C,), float64.

    Returns:
        (2, C), float64: the sums of d and of d * (x - mean).

    Example:
        >>> grad = torch.ones(2, 1)
        >>> ones = torch.ones(1)
        >>> mask_and_sum(grad, torch.tensor([[3.0], [-3.0]]), ones, ones, ones.double())
        tensor([[1.],
                [2.]], dtype=torch.float64)
        >>> grad
        tensor([[1.],
                [0.]])
    """
    if _is_native(pixels):
        return native_mask_and_sum(grad, pixels, scale, shift, mean)
    return mask_and_sum_in_torch(grad, pixels, scale, shift, mean)


def mask_and_sum_in_torch(grad: Tensor, pixels: Tensor, scale: Tensor, shift: Tensor, mean: Tensor) -> Tensor:
    """Compute :func:`mask_and_sum` in plain torch."""
    grad.masked_fill_(torch.addcmul(shift, pixels, scale) <= 0, 0)
    return _sums(grad, pixels, mean)


def norm_backward(grad: Tensor, pixels: Tensor, factors: Tensor, out: Tensor, residual: Tensor | None = None) -> None:
    """Compute the gradient of a norm's input, ``k1 * grad + k2 * pixels + k3``, into a map.

    Args:
        grad: (..., C).
        pixels: The norm's input, of the shape and dtype of ``grad``.
        factors: k1, k2 and k3, (3, C), or only k1, (1, C), for a frozen norm; float64. k2 * pixels and k3 may cancel,
            as they do if the mean is many deviations.
        out: The result, of the shape and dtype of ``grad``; may be ``grad`` itself.
        residual: A map that is added, of the shape and dtype of ``grad``; may be ``out``. Defaults to None.

    Example:
        >>> grad = torch.ones(2, 1)
        >>> norm_backward(grad, torch.tensor([[3.0], [-3.0]]), torch.tensor([[2.0], [1.0], [0.5]]).double(), grad)
        >>> grad
        tensor([[ 5.5000],
                [-0.5000]])
    """
    if _is_native(pixels):
        native_norm_backward(grad, pixels, factors, out, residual)
    else:
        norm_backward_in_torch(grad, pixels, factors, out, residual)


def norm_backward_in_torch(grad: Tensor, pixels: Tensor, factors: Tensor, out: Tensor, residual: Tensor | None) -> None:
    """Compute :func:`norm_backward` in plain torch."""
    result = factors[0] * grad.double()
    if len(factors) > 1:
        result = torch.addcmul(result, factors[1], pixels.double()) + factors[2]
    out.copy_(result if residual is None else result + residual)


def max_pooling_sums(grad_pooled: Tensor, pixels: Tensor, scale: Tensor, shift: Tensor, mean: Tensor) -> Tensor:
    """Sum, for a norm's backward pass, over the pixels that a ReLU and a 2x2 max-pooling after it selected.

    Args:
        grad_pooled: The gradient of ``max_pooling(pixels, scale, shift)``, (N, H // 2, W // 2, C).
        pixels: x, the norm's input, (N, H, W, C), in the dtype of ``grad_pooled``.
        scale: (C,); float32, or float64 for maps in float64.
        shift: As ``scale``.
        mean: (C,), float64.

    Returns:
        (2, C), float64: the sums of d and of d * (x - mean). d is the gradient at the norm's output: of every 2x2
        pixels, that of the first maximum, if this is positive.

    Example:
        >>> pixels, ones = torch.arange(4.0).view(1, 2, 2, 1), torch.ones(1)
        >>> max_pooling_sums(torch.ones(1, 1, 1, 1), pixels, ones, ones, ones.double())
        tensor([[1.],
                [2.]], dtype=torch.float64)
    """
    if _is_native(pixels):
        return native_max_pooling_sums(grad_pooled, pixels, scale, shift, mean)
    return max_pooling_sums_in_torch(grad_pooled, pixels, scale, shift, mean)


def max_pooling_sums_in_torch(
    grad_pooled: Tensor, pixels: Tensor, scale: Tensor, shift: Tensor, mean: Tensor
) -> Tensor:
    """Compute :func:`max_pooling_sums` in plain torch."""
    corners = _corners(pixels)
    winner, passes = _winner(corners, scale, shift)
    selected = corners[0]
    for index in range(1, 4):
        selected = torch.where(winner == index, corners[index], selected)
    return _sums(grad_pooled.masked_fill(~passes, 0), selected, mean)


def max_pooling_backward(
    grad_pooled: Tensor,
    pixels: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    factors: Tensor | None,
    out: Tensor,
) -> None:
    """Compute the gradient of the input of a norm, a ReLU and a 2x2 max-pooling into a map.

    Args:
        grad_pooled: The gradient of ``max_pooling(pixels, scale, shift)``, (N, H // 2, W // 2, C).
        pixels: x, (N, H, W, C), in the dtype of ``grad_pooled``.
        scale: (C,); float32, or float64 for maps in float64. None for a pooling without a norm and a ReLU.
        shift: As ``scale``.
        factors: As for :func:`norm_backward`; None for the gradient at the norm's output, or without a norm.
        out: The result, ``k1 * d + k2 * x + k3`` for every pixel of the map, with d as in :func:`max_pooling_sums`;
            of the shape and dtype of ``pixels``, and another map.

    Example:
        >>> pixels = torch.arange(4.0).view(1, 2, 2, 1)
        >>> out = torch.empty_like(pixels)
        >>> max_pooling_backward(torch.ones(1, 1, 1, 1), pixels, None, None, None, out)
        >>> out.flatten()
        tensor([0., 0., 0., 1.])
    """
    if _is_native(pixels):
        native_max_pooling_backward(grad_pooled, pixels, scale, shift, factors, out)
    else:
        max_pooling_backward_in_torch(grad_pooled, pixels, scale, shift, factors, out)


def max_pooling_backward_in_torch(
    grad_pooled: Tensor,
    pixels: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    factors: Tensor | None,
    out: Tensor,
) -> None:
    """Compute :func:`max_pooling_backward` in plain torch."""
    winner, passes = _winner(_corners(pixels), scale, shift)
    grad = torch.zeros_like(pixels)
    for index, corner in enumerate(_corners(grad)):
        corner.copy_(grad_pooled.masked_fill(~passes | (winner != index), 0))
    if factors is None:
        out.copy_(grad)
    else:
        norm_backward_in_torch(grad, pixels, factors, out, residual=None)


def _sums(grad: Tensor, pixels: Tensor, mean: Tensor) -> Tensor:
    rows = grad.flatten(0, -2).double()
    return torch.stack([rows.sum(0), (rows * (pixels.flatten(0, -2) - mean)).sum(0)])


def _corners(pixels: Tensor) -> list[Tensor]:
    """The upper left, upper right, lower left and lower right pixels of all 2x2, (N, H // 2, W // 2, C) each."""
    height, width = pixels.shape[1] // 2 * 2, pixels.shape[2] // 2 * 2
    return [pixels[:, row:height:2, column:width:2] for row in (0, 1) for column in (0, 1)]


def _winner(corners: list[Tensor], scale: Tensor | None, shift: Tensor | None) -> tuple[Tensor, Tensor]:
    """Which corner has the first maximum (of several NaN, the last, as in torch), and whether it passes the ReLU."""
    inputs = corners
    if scale is not None and shift is not None:
        inputs = [torch.addcmul(shift, corner, scale) for corner in corners]
    best, winner = inputs[0], torch.zeros_like(inputs[0], dtype=torch.uint8)
    for index in range(1, 4):
        is_better = (inputs[index] > best) | inputs[index].isnan()
        best = torch.where(is_better, inputs[index], best)
        winner.masked_fill_(is_better, index)
    return winner, torch.ones_like(best, dtype=torch.bool) if scale is None else ~(best <= 0)


def _is_native(pixels: Tensor) -> bool:
    return pixels.device.type in _native_devices and choose(pixels.device) == "native"


def _fake_sums(pixels: Tensor) -> Tensor:
    return pixels.new_empty(2, pixels.shape[-1], dtype=torch.float64)


native_channel_statistics = native_operator("channel_statistics", _fake_sums)
native_mask_and_sum = native_operator("mask_and_sum", _fake_sums)
native_norm_backward = native_operator("norm_backward", lambda: None)
native_max_pooling_sums = native_operator("max_pooling_sums", _fake_sums)
native_max_pooling_backward = native_operator("max_pooling_backward", lambda: None)
_native_devices = devices_of("channel_statistics")
