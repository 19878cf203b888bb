"""Aggregation: the sum over the footprint, weighted for every pixel, tap and group of channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .aggregation_by_rows import aggregation_by_rows
from .backend import choose
from .checks import autocast, check_alike, check_map, check_shape, check_tensors
from .footprint import ALL_PADDING_MODES, Footprint, IntOrPair, output_size
from .groups import broadcast_weight, check_groups, split_channels
from .native import differentiable_operator
from .reference_backend import compute_by_reference
from .torch_internals import is_exporting


def aggregation(
    value: Tensor,
    weight: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
    groups: str = "interleaved",
) -> Tensor:
    r"""Sum the pixels of every footprint, each multiplied by its weight.

    .. math:: y_{c,i} = \sum_{j \in R(i)} w_{c \bmod C_w,\, j - i} \; x_{c,j}

    The aggregation of the paper's equations 2 and 4. ``C / Cw`` channels share a weight: interleaved, as in the
    equation, or side by side, as those of a head or of an involution's group.

    Args:
        value: The features x, (N, C, H, W); float64, float32, float16 or bfloat16, of any strides.
        weight: The weights w, (N, Cw, Kh * Kw, Ho * Wo), with C divisible by Cw; dtype and device of ``value``.
        kernel_size: Taps of the footprint, odd; an integer or (height, width).
        stride: Pixels between footprints. Defaults to 1.
        dilation: Pixels between taps. Defaults to 1.
        padding_mode: 'reflect' (default) or 'zeros' beyond the border, of width ``dilation * (kernel_size - 1) / 2``;
            or 'clamp', which moves a footprint inwards that would reach over the border, as neighborhood attention
            does. The map then has at least ``kernel_size * dilation`` pixels along each axis.
        groups: 'interleaved' (default), where channel c uses the weight ``c % Cw``, or 'contiguous', where it uses
            ``c // (C / Cw)``.

    Returns:
        (N, C, Ho, Wo) with ``Ho = ceil(H / stride)``; half precision accumulates in float32.

    Raises:
        TypeError: A dtype is not allowed, or the two differ outside autocast.
        ValueError: A shape, size or mode does not fit; the message names it.

    Example:
        >>> value = torch.arange(9.0).view(1, 1, 3, 3)
        >>> mean = torch.full((1, 1, 9, 9), 1 / 9)
        >>> aggregation(value, mean, kernel_size=3)[0, 0, 1, 1]
        tensor(4.)
    """
    footprint = Footprint.parse(kernel_size, stride, dilation, padding_mode, allowed=ALL_PADDING_MODES)
    check_groups(groups)
    check_tensors(value=value, weight=weight)
    value, weight = autocast(value, weight)
    check_aggregation(value, weight, "weight", footprint)
    chosen = choose(value.device)
    if chosen == "native":
        return native_aggregation(value, weight, *footprint, groups)
    if chosen == "reference":
        return compute_by_reference("aggregation", value, weight, footprint, groups=groups)
    return aggregation_in_torch(value, weight, footprint, groups)


def check_aggregation(value: Tensor, weight: Tensor, name: str, footprint: Footprint) -> None:
    """Raise an error for operands that do not fit; ``name`` is the name of the weight in messages."""
    check_map(value, "value")
    footprint.check_size(value.shape[2], value.shape[3])
    height, width = footprint.output_size(value.shape[2], value.shape[3])
    expected = (value.shape[0], "Cw", footprint.taps, height * width)
    check_shape(weight, name, expected, f"value {tuple(value.shape)} and {footprint}")
    check_alike(value, "value", weight, name)
    if weight.shape[1] < 1 or value.shape[1] % weight.shape[1]:
        raise ValueError(
            f"{name} must have a number of channels that divides those of value ({value.shape[1]}), "
            f"got {weight.shape[1]}"
        )


def aggregation_in_torch(value: Tensor, weight: Tensor, footprint: Footprint, groups: str = "interleaved") -> Tensor:
    """Compute :func:`aggregation` in plain torch, one tap at a time."""
    if is_exporting():
        return aggregation_by_rows(value, weight, footprint, groups)
    output_size = footprint.output_size(value.shape[2], value.shape[3])
    accumulate = torch.promote_types(value.dtype, torch.float32)
    # (N, C / Cw, Cw, H, W) times (N, 1, Cw, K*K, Ho, Wo), or with contiguous groups the other way round: channels that
    # share a weight are broadcast
    shared = split_channels(value.to(accumulate), weight.shape[1], groups)
    weight = broadcast_weight(weight.to(accumulate).unflatten(-1, output_size), groups)
    output = shared.new_zeros(*shared.shape[:3], *output_size)
    for tap, neighbour in enumerate(footprint.neighbours(shared)):
        output = torch.addcmul(output, neighbour, weight[:, :, :, tap])
    return output.flatten(1, 2).to(value.dtype)


# The product of output, value and weight is linear in each of them, so the gradients of each of the three operators
# below are computed by the other two. Derivatives of any order need no further kernel. ctx.geometry is the footprint
# and the groups.


def _fake_aggregation(value: Tensor, stride: Any) -> Tensor:
    height, width = output_size(value.shape[2], value.shape[3], stride)
    return value.new_empty(value.shape[0], value.shape[1], height, width)


def _setup_aggregation(ctx: Any, inputs: tuple, output: Tensor) -> None:
    value, weight, *ctx.geometry = inputs
    ctx.save_for_backward(value, weight)


def _backward_aggregation(ctx: Any, grad: Tensor) -> tuple:
    value, weight = ctx.saved_tensors
    value_needs, weight_needs = ctx.needs_input_grad[:2]
    return (
        native_value_gradient(grad, weight, value.shape[2], value.shape[3], *ctx.geometry) if value_needs else None,
        native_weight_gradient(grad, value, weight.shape[1], *ctx.geometry) if weight_needs else None,
        *(None,) * 5,
    )


def _fake_value_gradient(grad_output: Tensor, height: int, width: int) -> Tensor:
    return grad_output.new_empty(grad_output.shape[0], grad_output.shape[1], height, width)


def _setup_value_gradient(ctx: Any, inputs: tuple, output: Tensor) -> None:
    grad, weight, _, _, *ctx.geometry = inputs
    ctx.save_for_backward(grad, weight)


def _backward_value_gradient(ctx: Any, grad_value: Tensor) -> tuple:
    grad, weight = ctx.saved_tensors
    grad_needs, weight_needs = ctx.needs_input_grad[:2]
    return (
        native_aggregation(grad_value, weight, *ctx.geometry) if grad_needs else None,
        native_weight_gradient(grad, grad_value, weight.shape[1], *ctx.geometry) if weight_needs else None,
        *(None,) * 7,
    )


def _fake_weight_gradient(grad_output: Tensor, weight_channels: int, kernel_size: Any) -> Tensor:
    batch, _, height, width = grad_output.shape
    return grad_output.new_empty(batch, weight_channels, kernel_size[0] * kernel_size[1], height * width)


def _setup_weight_gradient(ctx: Any, inputs: tuple, output: Tensor) -> None:
    grad, value, _, *ctx.geometry = inputs
    ctx.save_for_backward(grad, value)


def _backward_weight_gradient(ctx: Any, grad_weight: Tensor) -> tuple:
    grad, value = ctx.saved_tensors
    grad_needs, value_needs = ctx.needs_input_grad[:2]
    height, width = value.shape[2:]
    return (
        native_aggregation(value, grad_weight, *ctx.geometry) if grad_needs else None,
        native_value_gradient(grad, grad_weight, height, width, *ctx.geometry) if value_needs else None,
        *(None,) * 6,
    )


native_aggregation = differentiable_operator(
    "aggregation", _fake_aggregation, _setup_aggregation, _backward_aggregation
)
native_value_gradient = differentiable_operator(
    "aggregation_value_gradient", _fake_value_gradient, _setup_value_gradient, _backward_value_gradient
)
native_weight_gradient = differentiable_operator(
    "aggregation_weight_gradient", _fake_weight_gradient, _setup_weight_gradient, _backward_weight_gradient
)
