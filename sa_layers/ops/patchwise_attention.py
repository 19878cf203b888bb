"""Patchwise attention as one operator for evaluation: relation, mapping and aggregation."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor

from .affine_relu import AffineReLU
from .aggregation import aggregation_in_torch
from .checks import autocast, check_tensors
from .footprint import Footprint, IntOrPair, output_size
from .fusion import tf32_is_allowed, why_not_fused
from .implementations import why_no_implementation
from .mapping_layer import Mapping, MappingOperands, apply_mapping, operands_of
from .native import native_operator
from .pairwise_relation import geometry_of
from .patchwise_operands import check_patchwise_attention
from .patchwise_relation import patchwise_relation


def patchwise_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mapping: Mapping,
    kernel_size: IntOrPair,
    relation: str = "concatenation",
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
    *,
    epilogue: AffineReLU | None = None,
) -> Tensor:
    r"""Sum the pixels of every footprint, weighted by the mapping of the footprint as a whole.

    .. math::
        h_i &= b_1 + W_1 \operatorname{relu}(s_1 \odot \delta_{R(i)} + t_1) \\
        y_i &= \sum_{j \in R(i)} (b_2 + W_2 \operatorname{relu}(s_2 \odot h_i + t_2))_j \odot \beta_j

    Equations 4 and 5 of the paper with the norms of the mapping frozen: :math:`\delta` is the relation, and
    :math:`s, t` are the norms. One kernel computes it if
    :func:`sa_layers.ops.why_not_fused` returns None and an implementation is eligible on the device; it never writes
    all relations or weights to memory. Otherwise the unfused operators, which have derivatives, compute it. Tensor
    cores round activated features, :math:`W_1, h, W_2` to the dtype of half-precision maps, and to TF32 for float32
    maps if ``torch.backends.cuda.matmul.allow_tf32`` is set. There, in half precision at SAN's widths, a NaN or inf in
    a map may spread to every output pixel of a thread block that reads it.

    Args:
        query: φ, (N, R, H, W); float32, float16 or bfloat16, fastest as a channels-last map or a slice of its channels;
            or float64, for which the CPU uses the unfused operators.
        key: ψ, the shape, dtype and device of ``query``. Under 'zeros' padding pixels beyond the border are 0.
        value: β, (N, C, H, W), dtype and device of ``query``.
        mapping: Two layers, from the F features of :func:`sa_layers.ops.patchwise_relation` to Cw hidden channels to
            Cw * taps weights, the taps within a channel; C is divisible by Cw. On the device of ``query``.
        kernel_size: Taps of the footprint, odd; an integer or (height, width).
        relation: δ, 'concatenation' (default), 'star' or 'clique'; see :func:`patchwise_relation`.
        stride: Pixels between footprints. Defaults to 1.
        dilation: Pixels between taps. Defaults to 1.
        padding_mode: 'reflect' (default) or 'zeros' beyond the border.
        epilogue: A scale, a shift and a ReLU of the output, or None (default).

    Returns:
        (N, C, Ho, Wo) with ``Ho = ceil(H / stride)``; channels last in memory. Channel c uses the weight c mod Cw; half
        precision accumulates in float32.

    Raises:
        TypeError: A dtype is not allowed.
        ValueError: A shape, size or mode does not fit; the message names it.

    Example:
        >>> from sa_layers.ops import MappingLayer
        >>> features = torch.ones(1, 4, 6, 6)
        >>> hidden = MappingLayer(torch.ones(40), torch.zeros(40), torch.ones(2, 40), torch.zeros(2))
        >>> weights = MappingLayer(torch.ones(2), torch.zeros(2), torch.zeros(18, 2), torch.full((18,), 0.125))
        >>> mapping = [hidden, weights]
        >>> patchwise_attention(features, features, features, mapping, kernel_size=3)[0, 0, 0, :3]
        tensor([1.1250, 1.1250, 1.1250])
    """
    footprint = Footprint.parse(kernel_size, stride, dilation, padding_mode)
    check_tensors(query=query, key=key, value=value)
    query, key, value = autocast(query, key, value)
    check_patchwise_attention(query, key, value, mapping, footprint, relation, epilogue)
    tensors = [query, key, value, *chain.from_iterable(mapping), *(epilogue or ())]
    sizes = (query.shape[1], value.shape[1], mapping[0].bias.shape[0])
    obstacle = why_not_fused(tensors) or why_no_kernel(query.device, query.dtype, *sizes, footprint, relation)
    if obstacle is None:
        operands = operands_of(mapping)
        return patchwise_attention_fused(query, key, value, operands, footprint, relation, epilogue)
    return patchwise_attention_unfused(query, key, value, mapping, footprint, relation, epilogue)


def patchwise_attention_fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mapping: MappingOperands,
    footprint: Footprint,
    relation: str,
    epilogue: AffineReLU | None = None,
) -> Tensor:
    """Compute patchwise attention by the kernel, for checked operands that it supports."""
    parameters = (*mapping, *(epilogue or (None, None)))
    geometry = geometry_of(footprint, relation)
    return native_attention(query, key, value, *parameters, *geometry, query.is_cuda and tf32_is_allowed())


def patchwise_attention_unfused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mapping: Mapping,
    footprint: Footprint,
    relation: str,
    epilogue: AffineReLU | None = None,
) -> Tensor:
    """Compute patchwise attention by its unfused operators, which have derivatives."""
    accumulate = torch.promote_types(query.dtype, torch.float32)
    kernel_size, stride, dilation, padding_mode = footprint
    features = patchwise_relation(
        query.to(accumulate), key.to(accumulate), kernel_size, relation, stride, dilation, padding_mode
    )
    weights = apply_mapping(features.squeeze(2), mapping).unflatten(1, (-1, footprint.taps))
    output = aggregation_in_torch(value.to(accumulate), weights, footprint)
    if epilogue is not None:
        output = torch.relu(output * epilogue.scale.view(-1, 1, 1) + epilogue.shift.view(-1, 1, 1))
    # channels last by permutation, since torch.vmap does not support memory formats
    return output.to(value.dtype).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def why_no_kernel(
    device: torch.device,
    dtype: torch.dtype,
    channels: int,
    value_channels: int,
    weight_channels: int,
    footprint: Footprint,
    relation: str,
) -> str | None:
    """One sentence on why no native kernel on ``device`` supports these sizes, or None.

    Args:
        device: The device of the maps.
        dtype: The dtype of the maps.
        channels: R.
        value_channels: C.
        weight_channels: Cw.
        footprint: R(i).
        relation: δ.

    Example:
        >>> why_no_kernel(torch.device("meta"), torch.float32, 4, 16, 2, Footprint.parse(3), "star")
        'the fused operator of patchwise attention was not built for meta'
    """
    geometry = geometry_of(footprint, relation)[:-1]  # every kernel supports every padding mode
    sizes = (channels, value_channels, weight_channels)
    return why_no_implementation("patchwise_attention", device, dtype, *sizes, *geometry)


def _fake_attention(value: Tensor, stride: Any) -> Tensor:
    height, width = output_size(value.shape[2], value.shape[3], stride)
    return value.new_empty(value.shape[0], height, width, value.shape[1]).permute(0, 3, 1, 2)


native_attention = native_operator("patchwise_attention", _fake_attention)
