"""The numbers of each channel between the passes of a norm in training, in float64.

The passes over maps are in :mod:`sa_layers.ops.norm_training`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .backend import choose, devices_of
from .native import native_operator


def norm_scale_and_shift(
    statistics: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    r"""Compute what a norm multiplies and adds, :math:`s = w / \sqrt{\sigma^2 + \epsilon}` and :math:`t = b - \mu s`.

    Args:
        statistics: μ and σ², (2, C) in float64.
        weight: w, (C,) in any floating-point dtype; None for 1.
        bias: b, as ``weight``; None for 0.
        eps: ε.

    Returns:
        s, t, μ and :math:`1 / \sqrt{\sigma^2 + \epsilon}`, (4, C) in float64; and s and t in float32, (2, C).

    Example:
        >>> norm_scale_and_shift(torch.tensor([[3.0], [3.0]]).double(), None, None, 1.0)[1].tolist()
        [[0.5], [-1.5]]
    """
    if statistics.device.type in _native_devices and choose(statistics.device) == "native":
        folded, rounded = _native_scale_and_shift(statistics, weight, bias, eps)
        return folded, rounded
    mean, variance = statistics
    inverse = (variance + eps).rsqrt()
    scale = inverse if weight is None else inverse * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    folded = torch.stack([scale, shift, mean, inverse])
    return folded, folded[:2].float()


def norm_track(statistics: Tensor, running_mean: Tensor, running_var: Tensor, factor: float, count: float) -> None:
    """Update running statistics in place, as torch's batch norm does.

    Args:
        statistics: Mean and biased variance, (2, C) in float64.
        running_mean: (C,), of any floating-point dtype.
        running_var: As ``running_mean``; it tracks the unbiased variance.
        factor: The weight of the new statistics.
        count: How many numbers they are of.

    Example:
        >>> mean, variance = torch.zeros(1), torch.ones(1)
        >>> norm_track(torch.tensor([[4.0], [2.0]]).double(), mean, variance, 0.5, 2)
        >>> mean, variance
        (tensor([2.]), tensor([2.5000]))
    """
    native = statistics.device.type in _native_devices and choose(statistics.device) == "native"
    plain = all(
        kept.dtype in (torch.float32, torch.float64) and kept.is_contiguous() for kept in (running_mean, running_var)
    )
    if native and plain:
        _native_track(statistics, running_mean, running_var, factor, count)
        return
    mean, variance = statistics
    running_mean.lerp_(mean.to(running_mean.dtype), factor)
    running_var.lerp_((variance * (count / max(count - 1, 1))).to(running_var.dtype), factor)


def norm_gradient(sums: Tensor, totals: Tensor | None, folded: Tensor, count: float) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of a norm from the sums of the gradient of its output.

    Args:
        sums: The sum of the gradient, and that of its product with ``input - mean``, (2, C) in float64.
        totals: The sums over all processes, if they share the statistics; otherwise None.
        folded: What :func:`norm_scale_and_shift` returned.
        count: How many numbers of each channel the statistics are of; 0 for frozen statistics.

    Returns:
        - The gradients of weight and bias, (2, C).
        - The means m1 and m2, (2, C), with which the gradient of the input is
          ``scale * (grad - m1 - m2 * (input - mean))``; (0, C) for frozen statistics.
        - k1, k2 and k3 of the same as ``k1 * grad + k2 * input + k3``, (3, C); only k1 for frozen statistics.

    Example:
        >>> folded, _ = norm_scale_and_shift(torch.tensor([[3.0], [3.0]]).double(), None, None, 1.0)
        >>> gradients, means, factors = norm_gradient(torch.tensor([[2.0], [8.0]]).double(), None, folded, 2)
        >>> gradients.tolist(), means.tolist(), factors.tolist()
        ([[4.0], [2.0]], [[1.0], [1.0]], [[0.5], [-0.5], [1.0]])
    """
    if sums.device.type in _native_devices and choose(sums.device) == "native":
        gradients, means, factors = _native_gradient(sums.contiguous(), totals, folded, float(count))
        return gradients, means, factors
    scale, _, mean, inverse = folded
    gradients = torch.stack([sums[1] * inverse, sums[0]])
    if count == 0:
        return gradients, sums[:0], scale.unsqueeze(0)
    constant, product = (sums if totals is None else totals) / count
    slope = product * inverse * inverse
    factors = torch.stack([scale, -scale * slope, scale * (slope * mean - constant)])
    return gradients, torch.stack([constant, slope]), factors


def _fake_scale_and_shift(statistics: Tensor) -> tuple[Tensor, Tensor]:
    channels = statistics.shape[1]
    return statistics.new_empty(4, channels), statistics.new_empty(2, channels, dtype=torch.float32)


_native_scale_and_shift = native_operator("norm_scale_and_shift", _fake_scale_and_shift)
_native_track = native_operator("norm_track", lambda: None)
_native_gradient = native_operator(
    "norm_gradient",
    lambda sums, count: (
        torch.empty_like(sums),
        sums.new_empty(2 if count > 0 else 0, sums.shape[1]),
        sums.new_empty(3 if count > 0 else 1, sums.shape[1]),
    ),
)
_native_devices = devices_of("norm_gradient")
