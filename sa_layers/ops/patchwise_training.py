r"""Patchwise attention in training: the passes of its forward and its backward, without derivatives of their own.

.. math::
    z_i &= W_1 \operatorname{relu}(s_1 \odot f_i + t_1) \\
    w_i &= b_2 + W_2 \operatorname{relu}(s_2 \odot z_i + t_2) \\
    y_i &= \sum_{j \in R(i)} w_{i, j} \odot \beta_j

:math:`f_i` are the F features of a footprint, in the order of :func:`sa_layers.ops.patchwise_relation`. Between the
passes, the caller turns statistics into the scales and shifts of batch norms, and sums into the gradients of their
parameters. No pass returns anything of the size taps * pixels, and the caller keeps only the maps and z.

All maps are channels last, (N, H, W, C), with contiguous channels; they may be slices of the channels of wider maps.
'Compute dtype' is float32, or float64 for float64 maps. Each pass has a native way on the CPU for the relation
'concatenation', and one in plain torch for everything else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import patchwise_training_in_torch as in_torch
from .backend import choose, devices_of
from .footprint import Footprint, output_size
from .native import native_operator
from .patchwise_statistics import add_norm_gradients, concatenation_statistics, pixels_apart


def patchwise_statistics(query: Tensor, key: Tensor, footprint: Footprint, relation: str) -> Tensor:
    """Compute the mean and the biased variance of every feature over all footprints.

    Args:
        query: φ, (N, H, W, R); float32, float64, bfloat16 or float16.
        key: ψ, as ``query``.
        footprint: R(i).
        relation: δ, 'concatenation', 'star' or 'clique'.

    Returns:
        (2, F), float64.

    Example:
        >>> pixels = torch.ones(1, 5, 5, 2)
        >>> patchwise_statistics(pixels, pixels, Footprint.parse(3), "star")[:, 0]
        tensor([2., 0.], dtype=torch.float64)
    """
    if relation == "concatenation":
        return concatenation_statistics(query, key, footprint)
    return in_torch.statistics(query, key, footprint, relation)


def patchwise_hidden(
    query: Tensor, key: Tensor, footprint: Footprint, relation: str, scale1: Tensor, shift1: Tensor, weight1: Tensor
) -> Tensor:
    """Compute the hidden layer of every footprint, before its norm.

    Args:
        query: φ, (N, H, W, R).
        key: ψ, as ``query``.
        footprint: R(i).
        relation: δ.
        scale1: (F,), compute dtype.
        shift1: As ``scale1``.
        weight1: (Cw, F), compute dtype.

    Returns:
        z, (N, Ho, Wo, Cw) in compute dtype.

    Example:
        >>> pixels, ones = torch.ones(1, 5, 5, 2), torch.ones(9)
        >>> patchwise_hidden(pixels, pixels, Footprint.parse(3), "star", ones, ones, torch.ones(1, 9))[0, 0, 0]
        tensor([27.])
    """
    if relation == "concatenation" and _is_native(query):
        maps = (pixels_apart(query), pixels_apart(key))
        return _native_hidden(*maps, *_contiguous(scale1, shift1, weight1), *footprint)
    return in_torch.hidden(query, key, footprint, relation, scale1, shift1, weight1)


def patchwise_forward(
    z: Tensor, value: Tensor, footprint: Footprint, scale2: Tensor, shift2: Tensor, weight2: Tensor, bias2: Tensor
) -> Tensor:
    """Sum the values of every footprint, weighted by the second layer of the hidden ones.

    Args:
        z: (N, Ho, Wo, Cw), compute dtype.
        value: β, (N, H, W, C), C divisible by Cw; float32, float64, bfloat16 or float16.
        footprint: R(i).
        scale2: (Cw,), compute dtype.
        shift2: As ``scale2``.
        weight2: (Cw * taps, Cw), compute dtype, the taps within a weight channel.
        bias2: (Cw * taps,), compute dtype.

    Returns:
        (N, Ho, Wo, C), in the dtype of ``value``. Channel c uses the weight c mod Cw.

    Example:
        >>> z, value, one = torch.ones(1, 5, 5, 1), torch.ones(1, 5, 5, 2), torch.ones(1)
        >>> patchwise_forward(z, value, Footprint.parse(3), one, one, torch.ones(9, 1), torch.ones(9))[0, 0, 0]
        tensor([27., 27.])
    """
    if _is_native(value):
        parameters = _contiguous(scale2, shift2, weight2, bias2)
        return _native_weighted_sum(z.contiguous(), pixels_apart(value), *parameters, *footprint)
    return in_torch.forward(z, value, footprint, scale2, shift2, weight2, bias2)


def patchwise_backward(
    grad_output: Tensor,
    z: Tensor,
    value: Tensor,
    footprint: Footprint,
    scale2: Tensor,
    shift2: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    grad_value: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of :func:`patchwise_forward`, up to the ReLU of the hidden layer.

    Args:
        grad_output: (N, Ho, Wo, C), dtype of ``value``.
        z: As in the forward pass; so are the arguments down to ``bias2``.
        value: β.
        footprint: R(i).
        scale2: (Cw,).
        shift2: (Cw,).
        weight2: (Cw * taps, Cw).
        bias2: (Cw * taps,).
        grad_value: The gradient of ``value``, overwritten; (N, H, W, C), dtype of ``value``.

    Returns:
        The gradient of relu(scale2 * z + shift2), not masked by this ReLU, (N, Ho, Wo, Cw) in compute dtype; those of
        ``weight2`` and ``bias2``, in float64.

    Example:
        >>> z, value, one = torch.ones(1, 5, 5, 1), torch.ones(1, 5, 5, 2), torch.ones(1)
        >>> arguments = (z, value, Footprint.parse(3), one, one, torch.ones(9, 1), torch.ones(9))
        >>> grad_hidden, grad_weight2, grad_bias2 = patchwise_backward(value, *arguments, torch.empty(1, 5, 5, 2))
        >>> grad_hidden[0, 0, 0], grad_bias2[0]
        (tensor([18.]), tensor(50., dtype=torch.float64))
    """
    if _is_native(value):
        maps = (pixels_apart(grad_output), z.contiguous(), pixels_apart(value))
        parameters = _contiguous(scale2, shift2, weight2, bias2)
        return _native_weighted_sum_backward(*maps, *parameters, grad_value, *footprint)
    return in_torch.backward(grad_output, z, value, footprint, scale2, shift2, weight2, bias2, grad_value)


def patchwise_hidden_backward(
    grad_z: Tensor,
    query: Tensor,
    key: Tensor,
    footprint: Footprint,
    relation: str,
    scale1: Tensor,
    shift1: Tensor,
    mean1: Tensor,
    weight1: Tensor,
    grad_query: Tensor,
    grad_key: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compute the gradients of :func:`patchwise_hidden`, with a frozen norm before it.

    Args:
        grad_z: (N, Ho, Wo, Cw), compute dtype.
        query: As in the forward pass; so are the arguments down to ``weight1``, except ``mean1``.
        key: ψ.
        footprint: R(i).
        relation: δ.
        scale1: (F,).
        shift1: (F,).
        mean1: The mean of every feature, (F,) float64.
        weight1: (Cw, F).
        grad_query: The gradient of ``query``, overwritten; (N, H, W, R), dtype of ``query``.
        grad_key: The gradient of ``key``, likewise.

    Returns:
        The gradient of ``weight1``, (Cw, F) in float64; and (2, F) in float64, the sums over all footprints of g and of
        g * (f - mean1), where g is the gradient of scale1 * f + shift1.

    Example:
        >>> pixels, ones, mean = torch.ones(1, 5, 5, 2), torch.ones(9), torch.zeros(9).double()
        >>> weight1, maps = torch.ones(1, 9), (torch.empty(1, 5, 5, 2), torch.empty(1, 5, 5, 2))
        >>> arguments = (pixels, pixels, Footprint.parse(3), "star", ones, ones, mean, weight1, *maps)
        >>> patchwise_hidden_backward(pixels[..., :1], *arguments)[1][:, 0]
        tensor([25., 50.], dtype=torch.float64)
    """
    if relation == "concatenation" and _is_native(query):
        maps = (grad_z.contiguous(), pixels_apart(query), pixels_apart(key))
        parameters = _contiguous(scale1, shift1, mean1, weight1)
        if footprint.stride != (1, 1):
            grad_query.zero_()  # the kernel writes the centres of footprints only
        return _native_hidden_backward(*maps, *parameters, grad_query, grad_key, *footprint)
    arguments = (footprint, relation, scale1, shift1, mean1, weight1, grad_query, grad_key)
    return in_torch.hidden_backward(grad_z, query, key, *arguments)


def patchwise_norm_backward(
    query: Tensor,
    key: Tensor,
    footprint: Footprint,
    relation: str,
    mean1: Tensor,
    factors: Tensor,
    grad_query: Tensor,
    grad_key: Tensor,
) -> None:
    """Add what batch statistics of the first norm change in the gradients of query and key.

    The gradient of every feature f is -(factors[0] + factors[1] * (f - mean1)).

    Args:
        query: φ, (N, H, W, R).
        key: ψ, as ``query``.
        footprint: R(i).
        relation: δ.
        mean1: The mean of every feature, (F,) float64.
        factors: (2, F), float64.
        grad_query: (N, H, W, R), dtype of ``query``, added to.
        grad_key: As ``grad_query``.

    Example:
        >>> pixels, grad_query, grad_key = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
        >>> mean1, factors = torch.zeros(2).double(), torch.ones(2, 2).double()
        >>> arguments = (pixels, pixels, Footprint.parse(1), "concatenation", mean1, factors, grad_query, grad_key)
        >>> patchwise_norm_backward(*arguments)
        >>> grad_key.item()
        -2.0
    """
    if relation == "concatenation":
        add_norm_gradients(query, key, footprint, mean1, factors, grad_query, grad_key)
    else:
        in_torch.norm_backward(query, key, footprint, relation, mean1, factors, grad_query, grad_key)


def patchwise_why_not(
    dtype: torch.dtype, channels: int, value_channels: int, weight_channels: int, footprint: Footprint, relation: str
) -> str | None:
    """One sentence on why the native kernels do not support these sizes, or None.

    Args:
        dtype: The dtype of the maps.
        channels: R.
        value_channels: C.
        weight_channels: Cw.
        footprint: R(i).
        relation: δ.

    Example:
        >>> patchwise_why_not(torch.float32, 4, 16, 2, Footprint.parse(3), "star")
        "the kernels of training support the relation 'concatenation' only, got 'star'"
    """
    if relation != "concatenation":
        return f"the kernels of training support the relation 'concatenation' only, got {relation!r}"
    return None


def _is_native(pixels: Tensor) -> bool:
    return pixels.device.type in _native_devices and choose(pixels.device) == "native"


def _contiguous(*parameters: Tensor) -> list[Tensor]:
    return [parameter.contiguous() for parameter in parameters]


def _fake_hidden(query: Tensor, scale: Tensor, weight: Tensor, stride: Any) -> Tensor:
    return scale.new_empty(query.shape[0], *output_size(query.shape[1], query.shape[2], stride), weight.shape[0])


def _fake_hidden_backward(weight: Tensor) -> tuple[Tensor, Tensor]:
    hidden, features = weight.shape
    return weight.new_empty(hidden, features, dtype=torch.float64), weight.new_empty(2, features, dtype=torch.float64)


def _fake_weighted_sum(value: Tensor, stride: Any) -> Tensor:
    batch, height, width, channels = value.shape
    return value.new_empty(batch, *output_size(height, width, stride), channels)


def _fake_weighted_sum_backward(z: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    grad_weight = weight.new_empty(weight.shape, dtype=torch.float64)
    return z.new_empty(z.shape), grad_weight, grad_weight.new_empty(len(weight))


_native_hidden = native_operator("patchwise_hidden", _fake_hidden)
_native_hidden_backward = native_operator("patchwise_hidden_backward", _fake_hidden_backward)
_native_weighted_sum = native_operator("patchwise_weighted_sum", _fake_weighted_sum)
_native_weighted_sum_backward = native_operator("patchwise_weighted_sum_backward", _fake_weighted_sum_backward)
_native_devices = devices_of("patchwise_hidden")
