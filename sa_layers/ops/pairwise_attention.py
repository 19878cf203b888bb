"""Pairwise attention as one operator for evaluation: relation, position, mapping, softmax and aggregation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from .affine_relu import AffineReLU
from .checks import autocast, check_tensors
from .coordinates import coordinates
from .footprint import Footprint, IntOrPair, output_size
from .fusion import tf32_is_allowed, why_not_fused
from .implementations import why_no_implementation
from .mapping_layer import Mapping, MappingOperands, apply_mapping, operands_of
from .native import native_operator
from .pairwise_operands import PairPosition, check_pairwise_attention
from .pairwise_relation import geometry_of, pairwise_relation
from .softmax_aggregation import softmax_aggregation


def pairwise_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mapping: Mapping,
    kernel_size: IntOrPair,
    relation: str = "subtraction",
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
    *,
    position: PairPosition | None = None,
    epilogue: AffineReLU | None = None,
) -> Tensor:
    r"""Average the pixels of every footprint, weighted by the mapping of their relation to the centre.

    .. math:: y_i = \sum_{j \in R(i)} \operatorname{softmax}_j(\gamma([\delta(\varphi_i, \psi_j), p_{ij}])) \odot x_j

    One kernel computes it if :func:`sa_layers.ops.why_not_fused` returns None and an implementation is eligible on the
    device; it allocates only its output. Otherwise the unfused operators, which have derivatives, compute it. The
    kernel reads channels-last maps, and slices of their channels, in place and copies other maps. Tensor cores round
    features, weights and activations of the mapping to the dtype of half-precision maps, and to TF32 for float32 maps
    if ``torch.backends.cuda.matmul.allow_tf32`` is set. There, in half precision at SAN's widths, a NaN or inf in a map
    may spread to every output pixel of a thread block that reads it.

    Args:
        query: φ, (N, Cr, H, W); float64, float32, float16 or bfloat16, of any strides.
        key: ψ, the shape, dtype and device of ``query``.
        value: x, (N, C, H, W); dtype and device of ``query``.
        mapping: γ, one to three layers from D to Cw channels. D is the channels of the relation followed by those of
            the position; Cw divides C, and channel c uses the weight c mod Cw.
        kernel_size: Taps of the footprint, odd; an integer or (height, width).
        relation: δ, one of those of :func:`sa_layers.ops.pairwise_relation`. Defaults to 'subtraction'.
        stride: Pixels between footprints. Defaults to 1.
        dilation: Pixels between taps. Defaults to 1.
        padding_mode: 'reflect' (default) or 'zeros' beyond the border.
        position: p, or None (default) for none.
        epilogue: A scale, a shift and a ReLU of the output, or None (default).

    Returns:
        (N, C, Ho, Wo) with ``Ho = ceil(H / stride)``; channels last in memory if fused.

    Raises:
        TypeError: A dtype is not allowed.
        ValueError: A shape, size, mode or relation does not fit; the message names it.

    Example:
        >>> features = torch.arange(9.0).view(1, 1, 3, 3)
        >>> from sa_layers.ops import MappingLayer
        >>> constant = MappingLayer(torch.ones(1), torch.zeros(1), torch.zeros(1, 1), torch.zeros(1))
        >>> output = pairwise_attention(features, features, features, [constant], kernel_size=3)
        >>> round(output[0, 0, 1, 1].item(), 4)
        4.0
    """
    footprint = Footprint.parse(kernel_size, stride, dilation, padding_mode)
    check_tensors(query=query, key=key, value=value)
    query, key, value = autocast(query, key, value)
    check_pairwise_attention(query, key, value, mapping, relation, position, epilogue)
    tensors = [query, key, value, *chain.from_iterable(mapping), *(position or ())[:2], *(epilogue or ())]
    widths = [mapping[0].scale.shape[0], *(layer.bias.shape[0] for layer in mapping)]
    positions = 0 if position is None else position.query.shape[0]
    sizes = (query.shape[1], value.shape[1], widths, positions)
    obstacle = why_not_fused(tensors) or why_no_kernel(query.device, query.dtype, *sizes, footprint, relation)
    if obstacle is None:
        operands = operands_of(mapping)
        return pairwise_attention_fused(query, key, value, operands, footprint, relation, position, epilogue)
    return pairwise_attention_unfused(query, key, value, mapping, footprint, relation, position, epilogue)


def pairwise_attention_fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mapping: MappingOperands,
    footprint: Footprint,
    relation: str,
    position: PairPosition | None = None,
    epilogue: AffineReLU | None = None,
) -> Tensor:
    """Compute pairwise attention by the kernel, for checked operands that it supports."""
    return native_attention(
        query,
        key,
        value,
        *mapping,
        *((None, None) if position is None else position[:2]),
        [] if position is None or position.size is None else list(position.size),
        *(epilogue or (None, None)),
        *geometry_of(footprint, relation),
        query.is_cuda and tf32_is_allowed(),
    )


def pairwise_attention_unfused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mapping: Mapping,
    footprint: Footprint,
    relation: str,
    position: PairPosition | None = None,
    epilogue: AffineReLU | None = None,
) -> Tensor:
    """Compute pairwise attention by its unfused operators, which have derivatives."""
    kernel_size, stride, dilation, padding_mode = footprint
    geometry = (stride, dilation, padding_mode)
    dtype = mapping[0].scale.dtype
    features = pairwise_relation(query, key, kernel_size, relation, *geometry).to(dtype)
    if position is not None:
        grid = coordinates(query.to(dtype), position.size)
        grid = torch.cat([grid, torch.ones_like(grid[:, :1])], dim=1)
        here, there = (torch.einsum("pc,nchw->nphw", matrix, grid) for matrix in position[:2])
        encoded = pairwise_relation(here, there, kernel_size, "summation", *geometry)
        features = torch.cat([features, encoded.expand(features.shape[0], -1, -1, -1)], dim=1)
    logits = apply_mapping(features, mapping).to(value.dtype)
    output = softmax_aggregation(value, logits, kernel_size, *geometry)
    if epilogue is not None:
        output = (output * epilogue.scale.view(-1, 1, 1) + epilogue.shift.view(-1, 1, 1)).relu().to(value.dtype)
    return output


def why_no_kernel(
    device: torch.device,
    dtype: torch.dtype,
    channels: int,
    value_channels: int,
    widths: Sequence[int],
    positions: int,
    footprint: Footprint,
    relation: str,
) -> str | None:
    """One sentence on why no native kernel on ``device`` supports these sizes, or None.

    Args:
        device: The device of the maps.
        dtype: The dtype of the maps.
        channels: Cr.
        value_channels: C.
        widths: D, then the output channels of each layer of the mapping.
        positions: Channels of the position encoding, 0 for none.
        footprint: R.
        relation: δ.

    Example:
        >>> why_no_kernel(torch.device("meta"), torch.float32, 4, 16, [6, 4, 2], 2, Footprint.parse(7), "subtraction")
        'the fused operator of pairwise attention was not built for meta'
    """
    geometry = geometry_of(footprint, relation)[:-1]  # every kernel supports every padding mode
    sizes = (channels, value_channels, widths, positions)
    return why_no_implementation("pairwise_attention", device, dtype, *sizes, *geometry)


def _fake_attention(value: Tensor, stride: Any) -> Tensor:
    height, width = output_size(value.shape[2], value.shape[3], stride)
    return value.new_empty(value.shape[0], height, width, value.shape[1]).permute(0, 3, 1, 2)


native_attention = native_operator("pairwise_attention", _fake_attention)
