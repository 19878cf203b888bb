"""A softmax over the footprint, then aggregation: the end of pairwise attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .aggregation import (
    aggregation_in_torch,
    check_aggregation,
    native_aggregation,
    native_value_gradient,
    native_weight_gradient,
)
from .backend import choose
from .checks import autocast, check_tensors
from .footprint import ALL_PADDING_MODES, Footprint, IntOrPair, output_size
from .groups import check_groups
from .native import differentiable_operator, native_operator
from .reference_backend import compute_by_reference


def softmax_aggregation(
    value: Tensor,
    logits: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
    groups: str = "interleaved",
) -> Tensor:
    r"""Average the pixels of every footprint, weighted by a softmax over its taps.

    .. math:: y_{c,i} = \sum_{j \in R(i)} \operatorname{softmax}_j(l_{c \bmod C_w,\, j - i}) \; x_{c,j}

    Args:
        value: The features x, (N, C, H, W); float64, float32, float16 or bfloat16, of any strides.
        logits: l, (N, Cw, Kh * Kw, Ho * Wo), with C divisible by Cw; dtype and device of ``value``.
        kernel_size: Taps of the footprint, odd; an integer or (height, width).
        stride: Pixels between footprints. Defaults to 1.
        dilation: Pixels between taps. Defaults to 1.
        padding_mode: 'reflect' (default) or 'zeros' beyond the border, or 'clamp'; see
            :func:`~sa_layers.ops.aggregation`.
        groups: 'interleaved' (default), where channel c uses the logits ``c % Cw``, or 'contiguous', where it uses
            ``c // (C / Cw)``.

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
    footprint = Footprint.parse(kernel_size, stride, dilation, padding_mode, allowed=ALL_PADDING_MODES)
    check_groups(groups)
    check_tensors(value=value, logits=logits)
    value, logits = autocast(value, logits)
    check_aggregation(value, logits, "logits", footprint)
    chosen = choose(value.device)
    if chosen == "native":
        return native_softmax_aggregation(value, logits, *footprint, groups)[0]
    if chosen == "reference":
        return compute_by_reference("softmax_aggregation", value, logits, footprint, groups=groups)
    return aggregation_in_torch(value, _softmax(logits), footprint, groups)


def _softmax(logits: Tensor) -> Tensor:
    accumulate = torch.promote_types(logits.dtype, torch.float32)
    return logits.softmax(2, dtype=accumulate).to(logits.dtype)


def _fake_softmax_aggregation(value: Tensor, logits: Tensor, stride: Any) -> tuple[Tensor, Tensor, Tensor]:
    height, width = output_size(value.shape[2], value.shape[3], stride)
    accumulate = torch.promote_types(logits.dtype, torch.float32)
    max_logits = logits.new_empty(logits.shape[0], logits.shape[1], height * width, dtype=accumulate)
    output = value.new_empty(value.shape[0], value.shape[1], height, width)
    return output, max_logits, torch.empty_like(max_logits)


def _setup_softmax_aggregation(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    value, logits, *ctx.geometry = inputs
    _, max_logits, normalizers = output
    ctx.mark_non_differentiable(max_logits, normalizers)
    # without the result, which the next operation may change in place
    ctx.save_for_backward(value, logits, max_logits, normalizers)


def _backward_softmax_aggregation(ctx: Any, grad: Tensor, *_: Tensor) -> tuple:
    value, logits, max_logits, normalizers = ctx.saved_tensors
    value_needs, logits_needs = ctx.needs_input_grad[:2]
    size = value.shape[2:]
    grad_value = grad_logits = None
    if torch.is_grad_enabled():
        # create_graph: use the softmax and operators that are differentiable any number of times
        weight = _softmax(logits)
        grad_value = native_value_gradient(grad, weight, *size, *ctx.geometry) if value_needs else None
        if logits_needs:
            grad_weight = native_weight_gradient(grad, value, logits.shape[1], *ctx.geometry)
            grad_logits = weight * (grad_weight - (weight * grad_weight).sum(2, keepdim=True))
        return grad_value, grad_logits, *(None,) * 5
    if value_needs:
        grad_value = _value_gradient(grad, logits, max_logits, normalizers, *size, *ctx.geometry)
    if logits_needs:
        grad_logits = _logits_gradient(grad, value, logits, max_logits, normalizers, *ctx.geometry)
    return grad_value, grad_logits, *(None,) * 5


def _tangent_softmax_aggregation(
    value: Tensor, logits: Tensor, value_change: Tensor, logits_change: Tensor, *geometry: Any
) -> tuple[Tensor, None, None]:
    weight = _softmax(logits)
    weight_change = weight * (logits_change - (weight * logits_change).sum(2, keepdim=True))
    by_value = native_aggregation(value_change, weight, *geometry)
    return by_value + native_aggregation(value, weight_change, *geometry), None, None


def _fake_value_gradient(grad_output: Tensor, height: int, width: int) -> Tensor:
    return grad_output.new_empty(grad_output.shape[0], grad_output.shape[1], height, width)


def _fake_logits_gradient(logits: Tensor) -> Tensor:
    # the CPU kernels keep the layout of logits whose taps come before their weight channels in memory
    taps_first = logits.transpose(1, 2)
    if logits.device.type == "cpu" and not logits.is_contiguous() and taps_first.is_contiguous():
        return taps_first.new_empty(taps_first.shape).transpose(1, 2)
    return logits.new_empty(logits.shape)


_value_gradient = native_operator("softmax_aggregation_value_gradient", _fake_value_gradient)
_logits_gradient = native_operator("softmax_aggregation_logits_gradient", _fake_logits_gradient)
native_softmax_aggregation = differentiable_operator(
    "softmax_aggregation",
    _fake_softmax_aggregation,
    _setup_softmax_aggregation,
    _backward_softmax_aggregation,
    _tangent_softmax_aggregation,
)
