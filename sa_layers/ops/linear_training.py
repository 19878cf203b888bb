"""The linear layers of every pixel of a channels-last map in training, with the norm and the ReLU before them.

The activation ``relu(scale * pixels + shift)`` that a layer multiplies is computed again wherever it is read, in
forward and backward, and is never kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .affine_relu import AffineReLU, affine_relu


def linear_forward(
    pixels: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    prologue: AffineReLU | None,
    residual: Tensor | None = None,
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

    Returns:
        y, (N, H, W, D), D being the sum of all D_i; it may be a slice of a map with a few more channels.

    Example:
        >>> two = torch.full((2,), 2.0)
        >>> before, ones = AffineReLU(two, two), torch.ones(1, 1, 1, 2)
        >>> linear_forward(ones, [torch.eye(2)], [torch.ones(2)], before, residual=ones)
        tensor([[[[6., 6.]]]])
    """
    weight, bias = join_weights(weights, pixels.dtype), join_biases(weights, biases)
    rows = activation(pixels, prologue).flatten(0, 2)
    if residual is not None:
        result = torch.addmm(residual.flatten(0, 2), rows, weight.t())
        if bias is not None:
            result += bias
    else:
        result = torch.mm(rows, weight.t()) if bias is None else torch.addmm(bias.to(rows.dtype), rows, weight.t())
    return result.unflatten(0, pixels.shape[:3])


def linear_backward_input(
    grad: Tensor,
    weights: Sequence[Tensor],
    pixels: Tensor | None = None,
    prologue: AffineReLU | None = None,
    mean: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    r"""Compute the gradient of what the norm before the layers of :func:`linear_forward` returned, through its ReLU.

    .. math:: d_c = [s_c x_c + t_c > 0] \textstyle\sum_d g_d w_{dc}

    Args:
        grad: g, (N, H, W, D), the gradient of the layers' outputs; it may be a slice of a wider map's channels.
        weights: w, as for :func:`linear_forward`.
        pixels: x, which is only read with a prologue.
        prologue: s and t, as for :func:`linear_forward`.
        mean: m, (C,) float64, the mean of x, only read with a prologue.

    Returns:
        d, (N, H, W, C), contiguous, and with a prologue the sums over all pixels of d and of d (x - m), (2, C) float64.

    Example:
        >>> ones = torch.ones(1, 1, 1, 2)
        >>> before = AffineReLU(torch.ones(2), torch.tensor([0.0, -1.0]))
        >>> linear_backward_input(3 * ones, [torch.eye(2)], ones, before, torch.zeros(2).double())
        (tensor([[[[3., 0.]]]]), tensor([[3., 0.],
                [3., 0.]], dtype=torch.float64))
    """
    result = torch.mm(grad.flatten(0, 2), join_weights(weights, grad.dtype)).unflatten(0, grad.shape[:3])
    if prologue is None:
        return result, None
    assert pixels is not None
    assert mean is not None
    result.masked_fill_(torch.addcmul(prologue.shift, pixels, prologue.scale) <= 0, 0)
    rows = result.flatten(0, 2).double()
    return result, torch.stack([rows.sum(0), (rows * (pixels.flatten(0, 2) - mean)).sum(0)])


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
    rows = grad.flatten(0, 2)
    weight = torch.mm(rows.t(), activation(pixels, prologue).flatten(0, 2))
    bias = [rows.sum(0)] if with_bias else []
    return list(weight.split(list(sizes))), [part for whole in bias for part in whole.split(list(sizes))]


def activation(pixels: Tensor, prologue: AffineReLU | None) -> Tensor:
    """What the layers multiply: the pixels themselves, or after the norm and its ReLU."""
    return pixels if prologue is None else affine_relu(pixels, *prologue)


def join_weights(weights: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """The weights as one matrix (D, C), a copy only if there are several."""
    matrices = [weight.flatten(1) for weight in weights]
    return (matrices[0] if len(matrices) == 1 else torch.cat(matrices)).to(dtype)


def join_biases(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Tensor | None:
    """The biases as one vector (D,), zero where there are none, or None without any."""
    if all(bias is None for bias in biases):
        return None
    pairs = list(zip(weights, biases, strict=True))
    whole = [weight.new_zeros(len(weight)) if bias is None else bias for weight, bias in pairs]
    return whole[0] if len(whole) == 1 else torch.cat(whole)
