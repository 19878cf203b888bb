"""The passes of pairwise attention in training: statistics of norms, forward and backward, all by recomputation.

The mapping has two layers, each a batch norm, a ReLU and a linear layer. With r the features of a pair, those of its
relation and then those of its position,

    a = relu(scale1 * r + shift1),   y = relu(scale2 * (weight1 @ a) + shift2),   l = weight2 @ y

and the weights are a softmax of l over the taps; the bias of the last layer cancels. A norm with batch statistics needs
sums over all pairs of all pixels and their taps. Each function here is one pass over the pairs that returns such sums
in float64; none writes a tensor of the size of all pairs on the native backend. The caller turns sums into scales,
shifts and gradients of parameters. Maps are channels last, (N, H, W, C), and may be slices of a wider map's channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import pairwise_training_in_torch as in_torch
from .backend import choose, devices_of
from .footprint import output_size
from .native import native_operator
from .pairwise_relation import relation_width
from .pairwise_training_operands import PairwiseGeometry, PairwiseMapping, PairwiseSums


def pairwise_statistics(query: Tensor, key: Tensor, geometry: PairwiseGeometry) -> Tensor:
    """The mean and the biased variance of the features of all pairs.

    Args:
        query: (N, H, W, Cr); float64, float32, float16 or bfloat16.
        key: As ``query``.
        geometry: The pairs.

    Returns:
        (2, D), float64.

    Example:
        >>> from sa_layers.ops import Footprint
        >>> features = torch.arange(9.0).view(1, 3, 3, 1)
        >>> pairwise_statistics(features, features, PairwiseGeometry(Footprint.parse(1), "summation")).tolist()
        [[8.0], [26.666666666666668]]
    """
    if _is_native(query.device):
        return native_statistics(_pixels(query), _pixels(key), *_describe(geometry))
    return in_torch.statistics(query, key, geometry)


def pairwise_moments(
    query: Tensor, key: Tensor, geometry: PairwiseGeometry, scale1: Tensor, shift1: Tensor
) -> tuple[Tensor, Tensor]:
    """The mean (D,) and the biased covariance (D, D) of a over all pairs, float64.

    Args:
        query: (N, H, W, Cr).
        key: As ``query``.
        geometry: The pairs.
        scale1: Of the first norm, (D,); float32 or float64.
        shift1: As ``scale1``.

    Example:
        >>> from sa_layers.ops import Footprint
        >>> features = torch.arange(9.0).view(1, 3, 3, 1)
        >>> one, geometry = torch.ones(1), PairwiseGeometry(Footprint.parse(1), "summation")
        >>> mean, covariance = pairwise_moments(features, features, geometry, one, -10 * one)
        >>> round(mean.item(), 4), round(covariance.item(), 4)
        (1.3333, 4.4444)
    """
    if _is_native(query.device):
        return native_moments(_pixels(query), _pixels(key), scale1, shift1, *_describe(geometry))
    return in_torch.moments(query, key, geometry, scale1, shift1)


def pairwise_forward(
    query: Tensor, key: Tensor, value: Tensor, geometry: PairwiseGeometry, mapping: PairwiseMapping
) -> tuple[Tensor, Tensor]:
    """The attention.

    Args:
        query: (N, H, W, Cr).
        key: As ``query``.
        value: (N, H, W, C), with C a multiple of Cw; channel c uses the weight c mod Cw.
        geometry: The pairs.
        mapping: As it is after the statistics of its norms.

    Returns:
        The output (N, Ho, Wo, C), in the dtype of the maps, and the logarithms of the sums of exp(l) over the taps
        (N, Ho, Wo, Cw), in the dtype of accumulation.

    Example:
        >>> from sa_layers.ops import Footprint
        >>> features, one = torch.arange(9.0).view(1, 3, 3, 1), torch.ones(1)
        >>> geometry = PairwiseGeometry(Footprint.parse(3), "subtraction")
        >>> constant = PairwiseMapping(one, one, one, one, one[None], one, one, 0 * one[None])
        >>> output, logsumexp = pairwise_forward(features, features, features, geometry, constant)
        >>> round(output[0, 1, 1, 0].item(), 4), round(logsumexp[0, 1, 1, 0].exp().item(), 4)
        (4.0, 9.0)
    """
    if _is_native(query.device):
        maps = _pixels(query), _pixels(key), _pixels(value)
        return native_forward(*maps, list(mapping), *_describe(geometry))
    return in_torch.forward(query, key, value, geometry, mapping)


def pairwise_backward(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    logsumexp: Tensor,
    geometry: PairwiseGeometry,
    mapping: PairwiseMapping,
    grad_query: Tensor,
    grad_key: Tensor,
    grad_value: Tensor,
) -> PairwiseSums:
    """Overwrite the gradients of the maps with those of frozen norms, and return the sums of all other gradients.

    Args:
        grad_output: (N, Ho, Wo, C).
        query: (N, H, W, Cr).
        key: As ``query``.
        value: (N, H, W, C).
        output: Of :func:`pairwise_forward`.
        logsumexp: Of :func:`pairwise_forward`.
        geometry: The pairs.
        mapping: That of the forward pass.
        grad_query: (N, H, W, Cr), overwritten.
        grad_key: As ``grad_query``; another map, even where query and key are one.
        grad_value: (N, H, W, C), overwritten.
    """
    if _is_native(query.device, grad_query, grad_key, grad_value):
        maps = (_pixels(item) for item in (grad_output, query, key, value, output))
        described = _describe(geometry)
        hidden, products, weight2, features, position = native_backward(
            *maps, logsumexp, list(mapping), *described, grad_query, grad_key, grad_value
        )
        position = None if geometry.position is None else position
        return PairwiseSums(hidden, products, weight2, features, position)
    return in_torch.backward(
        grad_output, query, key, value, output, logsumexp, geometry, mapping, grad_query, grad_key, grad_value
    )


def pairwise_correction(
    query: Tensor,
    key: Tensor,
    geometry: PairwiseGeometry,
    mapping: PairwiseMapping,
    matrix: Tensor,
    offset: Tensor,
    grad_query: Tensor,
    grad_key: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """Add what the batch statistics of the second norm add to the gradients.

    That is g = 1[a > 0] (matrix (a - center) + offset) of every pair, which reaches the maps by the first norm's scale
    and the relation.

    Args:
        query: (N, H, W, Cr).
        key: As ``query``.
        geometry: The pairs.
        mapping: That of the forward pass.
        matrix: (D, D), float64.
        offset: (D,), float64.
        grad_query: (N, H, W, Cr), to which the gradient is added.
        grad_key: As ``grad_query``.

    Returns:
        The additions to ``features`` and ``position`` of :class:`PairwiseSums`.
    """
    if _is_native(query.device, grad_query, grad_key):
        operands = (_pixels(query), _pixels(key), list(mapping), matrix, offset)
        features, position = native_correction(*operands, *_describe(geometry), grad_query, grad_key)
        return features, None if geometry.position is None else position
    return in_torch.correction(query, key, geometry, mapping, matrix, offset, grad_query, grad_key)


def pairwise_norm_backward(
    query: Tensor,
    key: Tensor,
    geometry: PairwiseGeometry,
    mapping: PairwiseMapping,
    factors: Tensor,
    grad_query: Tensor,
    grad_key: Tensor,
) -> Tensor | None:
    """Add what the batch statistics of the first norm add to the gradients: -(factors[0] + factors[1] * (r - mean1)).

    Args:
        query: (N, H, W, Cr).
        key: As ``query``.
        geometry: The pairs.
        mapping: That of the forward pass.
        factors: (2, D), float64; they include the norm's scale.
        grad_query: (N, H, W, Cr), to which the gradient is added.
        grad_key: As ``grad_query``.

    Returns:
        The addition to ``position`` of :class:`PairwiseSums`.
    """
    if _is_native(query.device, grad_query, grad_key):
        operands = (_pixels(query), _pixels(key), mapping.mean1, factors)
        position = native_norm_backward(*operands, *_describe(geometry), grad_query, grad_key)
        return None if geometry.position is None else position
    return in_torch.norm_backward(query, key, geometry, mapping, factors, grad_query, grad_key)


def _is_native(device: torch.device, *written: Tensor) -> bool:
    """Whether the native kernels compute a pass; they write gradients into maps with contiguous channels."""
    return (
        device.type in _native_devices
        and choose(device) == "native"
        and all(item.stride(3) == 1 or item.shape[3] == 1 for item in written)
    )


def _pixels(features: Tensor) -> Tensor:
    """The map itself, or a copy if its channels are not contiguous."""
    return features if features.stride(3) == 1 or features.shape[3] == 1 else features.contiguous()


def _describe(geometry: PairwiseGeometry) -> tuple[Any, ...]:
    """The arguments of the native operators that describe the pairs."""
    (kernel_size, stride, dilation, padding_mode), relation, position = geometry
    query, key, size = position or (None, None, None)
    return query, key, list(size or ()), kernel_size, relation, stride, dilation, padding_mode


def _fake_statistics(query: Tensor, relation: str, query_position: Tensor | None) -> Tensor:
    return query.new_empty(2, _width(query, relation, query_position), dtype=torch.float64)


def _fake_moments(query: Tensor, relation: str, query_position: Tensor | None) -> tuple[Tensor, Tensor]:
    features = _width(query, relation, query_position)
    return query.new_empty(features, dtype=torch.float64), query.new_empty(features, features, dtype=torch.float64)


def _fake_forward(query: Tensor, value: Tensor, mapping: list[Tensor], stride: Any) -> tuple[Tensor, Tensor]:
    size = query.shape[0], *output_size(query.shape[1], query.shape[2], stride)
    wide = torch.promote_types(query.dtype, torch.float32)
    return value.new_empty(*size, value.shape[3]), query.new_empty(*size, mapping[-1].shape[0], dtype=wide)


def _fake_backward(query: Tensor, mapping: list[Tensor], query_position: Tensor | None) -> tuple[Tensor, ...]:
    hidden, features = mapping[4].shape
    sizes = (hidden,), (hidden, features), mapping[-1].shape, (2, features), _position_size(query_position)
    return tuple(query.new_empty(size, dtype=torch.float64) for size in sizes)


def _fake_correction(query: Tensor, offset: Tensor, query_position: Tensor | None) -> tuple[Tensor, Tensor]:
    sizes = (2, offset.shape[0]), _position_size(query_position)
    first, second = (query.new_empty(size, dtype=torch.float64) for size in sizes)
    return first, second


def _fake_norm_backward(query: Tensor, query_position: Tensor | None) -> Tensor:
    return query.new_empty(_position_size(query_position), dtype=torch.float64)


def _width(query: Tensor, relation: str, query_position: Tensor | None) -> int:
    return relation_width(relation, query.shape[3]) + _position_size(query_position)[1]


def _position_size(query_position: Tensor | None) -> tuple[int, int, int]:
    return 2, 0 if query_position is None else query_position.shape[0], 3


native_statistics = native_operator("pairwise_training_statistics", _fake_statistics)
native_moments = native_operator("pairwise_training_moments", _fake_moments)
native_forward = native_operator("pairwise_training_forward", _fake_forward)
native_backward = native_operator("pairwise_training_backward", _fake_backward)
native_correction = native_operator("pairwise_training_correction", _fake_correction)
native_norm_backward = native_operator("pairwise_training_norm_backward", _fake_norm_backward)
_native_devices = devices_of("pairwise_training_forward")
