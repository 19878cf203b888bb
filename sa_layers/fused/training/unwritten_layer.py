"""A linear layer before a norm with batch statistics whose output is never written.

What the norm needs of the output z = W a + b follows from the mean and the covariance of the layer's input a.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class OutputMoments(NamedTuple):
    """The moments of z."""

    statistics: Tensor
    """(2, D): mean and variance."""
    covariance: Tensor
    """(D, C): that of z and a."""


class MeanTerms(NamedTuple):
    """What the batch statistics add to the gradients of the layer."""

    weight: Tensor
    """(D, C)."""
    bias: Tensor
    """(D,)."""
    matrix: Tensor
    """(C, C): with ``offset``, the gradient of a has ``matrix (a - mean) + offset`` in addition."""
    offset: Tensor
    """(C,)."""


def output_moments(weight: Tensor, bias: Tensor | None, mean: Tensor, covariance: Tensor) -> OutputMoments:
    """Compute the moments of z from those of a, all in float64."""
    product = weight @ covariance
    of_mean = weight @ mean if bias is None else weight @ mean + bias
    return OutputMoments(torch.stack([of_mean, (product * weight).sum(1).clamp_min(0)]), product)


def mean_terms(
    weight: Tensor, scale: Tensor, means: Tensor, offset: Tensor, mean: Tensor, covariance: Tensor, count: int
) -> MeanTerms:
    """Compute what the means in the gradient of z, ``scale * (grad - m1 - m2 * (z - mean of z))``, contribute.

    Args:
        weight: W, (D, C); all tensors are float64.
        scale: That of the norm, (D,). The terms of weight and bias are without it.
        means: m1 and m2, (2, D).
        offset: The mean of z in this process minus that which the norm subtracts, (D,).
        mean: That of a, (C,).
        covariance: That of z and a, (D, C).
        count: The rows of a.
    """
    of_mean, slope = means
    constant, back = of_mean + slope * offset, weight.t() * scale
    of_weight = -count * (torch.outer(constant, mean) + slope.unsqueeze(1) * covariance)
    return MeanTerms(of_weight, -count * constant, -(back * slope) @ weight, -(back @ constant))
