"""Softmax over the footprint, then aggregation: what a pairwise layer does with its logits."""

from __future__ import annotations

import torch
from torch import Tensor

from .aggregation import aggregation, check_aggregation
from .checks import autocast
from .footprint import Footprint, IntOrPair


def softmax_aggregation(
    value: Tensor,
    logits: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
) -> Tensor:
    r"""Averages the pixels of every footprint, weighted by a softmax over its taps.

    .. math:: y_{c,i} = \sum_{j \in R(i)} \operatorname{softmax}_j(l_{c \bmod C_w,\, j - i}) \; x_{c,j}

    Args:
        value: The features x, (N, C, H, W); float64, float32, float16 or bfloat16, of any strides.
        logits: l, (N, Cw, Kh * Kw, Ho * Wo), with C divisible by Cw; dtype and device of ``value``.
        kernel_size: Taps of the footprint, odd; an integer or (height, width).
        stride: Pixels between footprints. Defaults to 1.
        dilation: Pixels between taps. Defaults to 1.
        padding_mode: 'reflect' (default) or 'zeros' beyond the border.

    Returns:
        (N, C, Ho, Wo) with ``Ho = ceil(H / stride)``.

    Raises:
        TypeError: A dtype is not allowed, or the two differ outside autocast.
        ValueError: A shape, size or mode does not fit; the message names it.

    Example:
        >>> value = torch.arange(9.0).view(1, 1, 3, 3)
        >>> softmax_aggregation(value, torch.zeros(1, 1, 9, 9), kernel_size=3)[0, 0, 1, 1]
        tensor(4.)
    """
    footprint = Footprint.parse(kernel_size, stride, dilation, padding_mode)
    value, logits = autocast(value, logits)
    check_aggregation(value, logits, "logits", footprint)
    accumulate = torch.promote_types(logits.dtype, torch.float32)
    weight = logits.softmax(2, dtype=accumulate).to(logits.dtype)
    return aggregation(value, weight, kernel_size, stride, dilation, padding_mode)
