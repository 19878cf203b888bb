"""The linear layers of every pixel of a channels-last map in training, with the norm and the ReLU before them.

The activation ``relu(scale * pixels + shift)`` that a layer multiplies is computed again wherever it is read, in
forward and backward, and is never kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .affine_relu import AffineReLU, affine_relu
from .backend import choose, devices_of
from .native import native_operator
from .norm_training import mask_and_sum

NONE = (None, None)


def linear_forward(
    pixels: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    prologue: AffineReLU | None,
    residual: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    r"""Compute linear layers of the same channels, whose outputs follow each other. Not differentiable.

    .. math:: y_d = e_d + b_d + \textstyle\sum_c w_{dc} \max(s_c x_c + t_c, 0)

    Args:
        pixels: x, (N, H, W, C), channels last; it may be a slice of a wider map's channels.
        weights: w, (D_i, C) or (D_i, C, 1, 1) for each layer, of any strides.
        biases: b, (D_i,) or None for each layer.
        prologue: s and t, (C,), a norm before the layers, with its ReLU; float32, or float64 for float64 pixels. None
            for layers of x itself.
        residual: e, (N, H, W, D), a map that is added; it may be a slice as ``pixels``. Defaults to None.
        out: Where y is written: a map as y, or a slice of a wider map's channels; it may be ``residual``. Defaults to
            None, for a new map.

    Returns:
        y, (N, H, W, D), D being the sum of all D_i.

    Example:
        >>> two = torch.full((2,), 2.0)
        >>> before, ones = AffineReLU(two, two), torch.ones(1, 1, 1, 2)
        >>> linear_forward(ones, [torch.eye(2)], [torch.ones(2)], before, residual=ones)
        tensor([[[[6., 6.]]]])
    """
    if out is None:
        out = pixels.new_empty(*pixels.shape[:3], sum(len(weight) for weight in weights))
    if is_native(pixels):
        _native_forward(pixels, weights, fill_biases(weights, biases), *(prologue or NONE), residual, out)
        return out
    weight, bias = join_weights(weights, pixels.dtype), join_biases(weights, biases)
    result, rows = as_rows(out), activation(pixels, prologue).flatten(0, 2)
    if residual is not None:
        torch.addmm(residual.flatten(0, 2), rows, weight.t(), out=result)
        if bias is not None:
            result += bias
    elif bias is not None:
        torch.addmm(bias.to(rows.dtype), rows, weight.t(), out=result)
    else:
        torch.mm(rows, weight.t(), out=result)
    return out


def linear_backward_input(
    grad: Tensor,
    weights: Sequence[Tensor],
    pixels: Tensor | None = None,
    prologue: AffineReLU | None = None,
    mean: Tensor | None = None,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    r"""Compute the gradient of what the norm before the layers of :func:`linear_forward` returned, through its ReLU.

    .. math:: d_c = [s_c x_c + t_c > 0] \textstyle\sum_d g_d w_{dc}

    Args:
        grad: g, (N, H, W, D), the gradient of the layers' outputs; it may be a slice of a wider map's channels.
        weights: w, as for :func:`linear_forward`.
        pixels: x, which is only read with a prologue.
        prologue: s and t, as for :func:`linear_forward`.
        mean: m, (C,) float64, the mean of x, only read with a prologue.
        out: Where d is written: a map as d, or a slice of a wider map's channels. Defaults to None, for a new map.

    Returns:
        d, (N, H, W, C), and with a prologue the sums over all pixels of d and of d (x - m), (2, C) float64.

    Example:
        >>> ones = torch.ones(1, 1, 1, 2)
        >>> before = AffineReLU(torch.ones(2), torch.tensor([0.0, -1.0]))
        >>> linear_backward_input(3 * ones, [torch.eye(2)], ones, before, torch.zeros(2).double())
        (tensor([[[[3., 0.]]]]), tensor([[3., 0.],
                [3., 0.]], dtype=torch.float64))
    """
    if out is None:
        out = grad.new_empty(*grad.shape[:3], weights[0].shape[1])
    if is_native(grad):
        read = (None,) * 4 if prologue is None else (pixels, *prologue, mean)
        sums = _native_backward_input(grad, weights, *read, out)
        return out, None if prologue is None else sums
    torch.mm(grad.flatten(0, 2), join_weights(weights, grad.dtype), out=as_rows(out))
    if prologue is None:
        return out, None
    assert pixels is not None
    assert mean is not None
    return out, mask_and_sum(out, pixels, *prologue, mean)


def linear_backward_weight(
    grad: Tensor, pixels: Tensor, prologue: AffineReLU | None, sizes: Sequence[int], with_bias: bool
) -> tuple[list[Tensor], list[Tensor]]:
    r"""Compute the gradients of the weights and the biases of :func:`linear_forward`, of all layers.

    .. math:: \partial w_{dc} = \textstyle\sum_p g_{pd} \max(s_c x_{pc} + t_c, 0), \qquad
              \partial b_d = \textstyle\sum_p g_{pd}

    Args:
        grad: g, (N, H, W, D), the gradient of the layers' outputs; it may be a slice of a wider map's channels.
        pixels: x, (N, H, W, C), which may be a slice too.
        prologue: s and t, as for :func:`linear_forward`.
        sizes: D_i of each layer; their sum is D.
        with_bias: Whether to compute the gradients of the biases.

    Returns:
        The gradients of the weights, (D_i, C) each, and those of the biases, (D_i,) each, or an empty list; in the
        dtype of ``grad``.

    Example:
        >>> linear_backward_weight(torch.ones(1, 1, 3, 2), torch.full((1, 1, 3, 1), 2.0), None, [1, 1], True)
        ([tensor([[6.]]), tensor([[6.]])], [tensor([3.]), tensor([3.])])
    """
    if is_native(grad):
        weight, bias = _native_backward_weight(grad, pixels, *(prologue or NONE), with_bias)
    else:
        rows = grad.flatten(0, 2)
        weight, bias = torch.mm(rows.t(), activation(pixels, prologue).flatten(0, 2)), rows.sum(0)
    if len(sizes) == 1:
        return [weight], [bias] if with_bias else []
    return list(weight.split(list(sizes))), list(bias.split(list(sizes))) if with_bias else []


def is_native(pixels: Tensor) -> bool:
    """Whether the native kernels compute the layers of these maps."""
    is_eligible = pixels.dtype == torch.float32 and pixels.device.type in _native_devices
    return is_eligible and choose(pixels.device) == "native"


def as_rows(pixels: Tensor) -> Tensor:
    """A map that is written, (N, H, W, C), as a view of its pixels, (N * H * W, C)."""
    return pixels.view(-1, pixels.shape[3])


def activation(pixels: Tensor, prologue: AffineReLU | None) -> Tensor:
    """What the layers multiply: the pixels themselves, or after the norm and its ReLU."""
    return pixels if prologue is None else affine_relu(pixels, *prologue)


def join_weights(weights: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """The weights as one matrix (D, C), a copy only if there are several."""
    matrices = [weight.flatten(1) for weight in weights]
    return (matrices[0] if len(matrices) == 1 else torch.cat(matrices)).to(dtype)


def fill_biases(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> list[Tensor]:
    """The biases with zeros for those that are missing, or none at all if all are missing."""
    if all(bias is None for bias in biases):
        return []
    pairs = zip(weights, biases, strict=True)
    return [weight.new_zeros(len(weight)) if bias is None else bias for weight, bias in pairs]


def join_biases(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Tensor | None:
    """The biases as one vector (D,), or None without any."""
    whole = fill_biases(weights, biases)
    return torch.cat(whole) if len(whole) > 1 else next(iter(whole), None)


def _fake_backward_input(weights: Sequence[Tensor], scale: Tensor | None) -> Tensor:
    return weights[0].new_empty(2, 0 if scale is None else len(scale), dtype=torch.float64)


def _fake_backward_weight(grad: Tensor, pixels: Tensor, with_bias: bool) -> tuple[Tensor, Tensor]:
    outputs = grad.shape[3]
    return grad.new_empty(outputs, pixels.shape[3]), grad.new_empty(outputs if with_bias else 0)


_native_forward = native_operator("linear_forward", lambda: None)
_native_backward_input = native_operator("linear_backward_input", _fake_backward_input)
_native_backward_weight = native_operator("linear_backward_weight", _fake_backward_weight)
_native_devices = devices_of("linear_forward")
