"""FLOP formulas of the native operators, for :class:`torch.utils.flop_counter.FlopCounterMode`.

A multiply-add is two FLOPs, as in torch's formulas. The exponentials of a softmax are not counted, as in torch's
attention. torch counts only matrix products and convolutions, so the plain torch backend counts nothing except for
'clique', which is a matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch.utils.flop_counter import register_flop_formula

from . import extension
from .footprint import output_size
from .native import by_name

Shape = Sequence[int]

# For each channel of each pair of a pixel and a neighbour.
_RELATION_FLOPS = {"subtraction": 1, "summation": 1, "hadamard": 1, "dot": 2, "concatenation": 0}
_RELATION_GRADIENT_FLOPS = {"subtraction": 1, "summation": 1, "hadamard": 2, "dot": 2, "concatenation": 1}


def aggregation_flops(value: Shape, weight: Shape) -> int:
    """One multiply-add for every channel, tap and footprint: (N, C, H, W) with weights (N, Cw, K*K, Ho*Wo).

    The gradients of ``aggregation`` and ``softmax_aggregation`` have the same count.

    >>> aggregation_flops((1, 64, 56, 56), (1, 8, 49, 3136))
    19668992
    """
    return 2 * value[0] * value[1] * weight[2] * weight[3]


def relation_flops(query: Shape, relation: str, out_shape: Shape) -> int:
    """One operation or multiply-add of a pairwise relation for every channel, tap and footprint."""
    return _RELATION_FLOPS[relation] * query[0] * query[1] * out_shape[2] * out_shape[3]


def _value_gradient_flops(grad_output: Shape, weight: Shape) -> int:
    return aggregation_flops(grad_output, weight)


def _weight_gradient_flops(grad_output: Shape, out_shape: Shape) -> int:
    return aggregation_flops(grad_output, out_shape)


def _softmax_aggregation_flops(value: Shape, logits: Shape) -> int:
    return aggregation_flops(value, logits)


def _logits_gradient_flops(grad_output: Shape, logits: Shape) -> int:
    return aggregation_flops(grad_output, logits)


def _relation_gradient_flops(grad_output: Shape, relation: str, out_shape: Shape) -> int:
    return _RELATION_GRADIENT_FLOPS[relation] * prod(out_shape[:2]) * grad_output[2] * grad_output[3]


def _pairwise_attention_flops(
    query: Shape, value: Shape, weights: Sequence[Shape], kernel_size: Shape, relation: str, out_shape: Shape
) -> int:
    """The relation, the linear layers of the mapping and the aggregation, without positions and epilogue."""
    pairs = out_shape[0] * out_shape[2] * out_shape[3] * prod(kernel_size)
    return pairs * (_RELATION_FLOPS[relation] * query[1] + 2 * sum(map(prod, weights)) + 2 * value[1])


def _pairwise_statistics_flops(query: Shape, kernel_size: Shape, stride: Shape, relation: str) -> int:
    """The relation of every pair."""
    return _pairs(query, kernel_size, stride) * _RELATION_FLOPS[relation] * query[3]


def _pairwise_moments_flops(query: Shape, scale1: Shape, kernel_size: Shape, stride: Shape, relation: str) -> int:
    """The relation, and a product for every two features."""
    pairs = _pairs(query, kernel_size, stride)
    return pairs * (_RELATION_FLOPS[relation] * query[3] + 2 * scale1[0] ** 2)


def _pairwise_forward_flops(
    query: Shape, value: Shape, mapping: Sequence[Shape], kernel_size: Shape, stride: Shape, relation: str
) -> int:
    """As :func:`_pairwise_attention_flops`."""
    pairs = _pairs(query, kernel_size, stride)
    return pairs * (_RELATION_FLOPS[relation] * query[3] + 2 * _layer_weights(mapping) + 2 * value[3])


def _pairwise_backward_flops(
    query: Shape, value: Shape, mapping: Sequence[Shape], kernel_size: Shape, stride: Shape, relation: str
) -> int:
    """The relation and the layers again, and the gradients of both factors of the relation, layers and aggregation."""
    pairs = _pairs(query, kernel_size, stride)
    return pairs * (_relation_and_gradients(relation) * query[3] + 2 * (3 * _layer_weights(mapping) + 2 * value[3]))


def _pairwise_correction_flops(query: Shape, matrix: Shape, kernel_size: Shape, stride: Shape, relation: str) -> int:
    """The relation again, its product with the matrix, and the gradients of both of its factors."""
    pairs = _pairs(query, kernel_size, stride)
    return pairs * (_relation_and_gradients(relation) * query[3] + 2 * prod(matrix))


def _pairwise_norm_backward_flops(query: Shape, kernel_size: Shape, stride: Shape, relation: str) -> int:
    """The relation again, and the gradients of both of its factors."""
    return _pairs(query, kernel_size, stride) * _relation_and_gradients(relation) * query[3]


def _pairs(query: Shape, kernel_size: Shape, stride: Shape) -> int:
    """All pairs of a pixel and a tap of its footprint, for a query (N, H, W, C)."""
    return query[0] * prod(output_size(query[1], query[2], stride)) * prod(kernel_size)


def _layer_weights(mapping: Sequence[Shape]) -> int:
    """The multiply-adds of both layers for each pair, from the list of parameters of a pairwise mapping."""
    return prod(mapping[4]) + prod(mapping[7])


def _relation_and_gradients(relation: str) -> int:
    """The relation and its two gradients, for each channel of each pair."""
    return _RELATION_FLOPS[relation] + 2 * _RELATION_GRADIENT_FLOPS[relation]


def _patchwise_attention_flops(
    query: Shape, weights: Sequence[Shape], kernel_size: Shape, relation: str, out_shape: Shape
) -> int:
    """The relation, both linear layers of the mapping and the aggregation, without the epilogue."""
    taps = prod(kernel_size)
    products = {"concatenation": 0, "star": taps, "clique": taps * taps}[relation]
    multiply_adds = products * query[1] + sum(map(prod, weights)) + taps * out_shape[1]
    return 2 * multiply_adds * out_shape[0] * out_shape[2] * out_shape[3]


def _patchwise_hidden_flops(weight: Shape, out_shape: Shape) -> int:
    """The first layer of the mapping."""
    return 2 * prod(weight) * prod(out_shape[:3])


def _patchwise_hidden_backward_flops(grad_z: Shape, weight: Shape) -> int:
    """Its product with a transposed factor for both factors."""
    return 4 * prod(weight) * prod(grad_z[:3])


def _patchwise_weighted_sum_flops(z: Shape, value: Shape, weight: Shape) -> int:
    """The second layer of the mapping and the aggregation."""
    return 2 * prod(z[:3]) * (prod(weight) + weight[0] // z[3] * value[3])


def _patchwise_weighted_sum_backward_flops(z: Shape, value: Shape, weight: Shape) -> int:
    """The layer again, its two products with transposed factors, and the aggregation for each of its factors."""
    return 2 * prod(z[:3]) * (3 * prod(weight) + 2 * weight[0] // z[3] * value[3])


def _pooled_projection_flops(weight: Shape, out_shape: Shape) -> int:
    """The projection of four pixels for each pixel of the output."""
    return 2 * 4 * prod(weight) * prod(out_shape[:3])


def _image_moments_flops(image: Shape) -> int:
    """A product for every pair of channels."""
    return 2 * prod(image) * image[1]


def _stem_backward_flops(grad_pooled: Shape, weight: Shape) -> int:
    """The projection of four pixels for each pixel of the output, and the products of one of them with the gradient."""
    return 2 * 5 * prod(weight) * prod(grad_pooled[:3])


def _projection_flops(weights: Sequence[Shape], result: Shape) -> int:
    """A matrix-vector product of each layer for every pixel of the result."""
    return 2 * prod(result[:-1]) * sum(map(prod, weights))


def _linear_flops(pixels: Shape, weights: Sequence[Shape]) -> int:
    """A matrix-vector product of each layer for every pixel."""
    return 2 * prod(pixels[:3]) * sum(map(prod, weights))


def _linear_backward_input_flops(grad: Shape, weights: Sequence[Shape]) -> int:
    return _linear_flops(grad, weights)


def _linear_backward_weight_flops(grad: Shape, pixels: Shape) -> int:
    """An outer product for every pixel."""
    return 2 * prod(grad) * pixels[3]


def _normed_projection_flops(features: Shape, weight: Shape, out_shape: Shape | None) -> int:
    """As :func:`_projection_flops`, or zero if the operator reports that it does not support the sizes."""
    return 2 * prod(features[:-1]) * prod(weight) if out_shape else 0


FORMULAS: dict[str, Callable[..., int]] = {
    "aggregation": aggregation_flops,
    "aggregation_value_gradient": _value_gradient_flops,
    "aggregation_weight_gradient": _weight_gradient_flops,
    "softmax_aggregation": _softmax_aggregation_flops,
    "softmax_aggregation_value_gradient": _logits_gradient_flops,
    "softmax_aggregation_logits_gradient": _logits_gradient_flops,
    "pairwise_relation": relation_flops,
    "pairwise_relation_query_gradient": _relation_gradient_flops,
    "pairwise_relation_key_gradient": _relation_gradient_flops,
    "pairwise_attention": _pairwise_attention_flops,
    "pairwise_training_statistics": _pairwise_statistics_flops,
    "pairwise_training_moments": _pairwise_moments_flops,
    "pairwise_training_forward": _pairwise_forward_flops,
    "pairwise_training_backward": _pairwise_backward_flops,
    "pairwise_training_correction": _pairwise_correction_flops,
    "pairwise_training_norm_backward": _pairwise_norm_backward_flops,
    "patchwise_attention": _patchwise_attention_flops,
    "patchwise_hidden": _patchwise_hidden_flops,
    "patchwise_hidden_backward": _patchwise_hidden_backward_flops,
    "patchwise_weighted_sum": _patchwise_weighted_sum_flops,
    "patchwise_weighted_sum_backward": _patchwise_weighted_sum_backward_flops,
    "normed_projection": _normed_projection_flops,
    "pooled_projection": _pooled_projection_flops,
    "projection": _projection_flops,
    "linear_forward": _linear_flops,
    "linear_backward_input": _linear_backward_input_flops,
    "linear_backward_weight": _linear_backward_weight_flops,
    "image_moments": _image_moments_flops,
    "stem_backward": _stem_backward_flops,
}

if extension.is_available():
    for _name, _formula in FORMULAS.items():
        register_flop_formula(getattr(torch.ops.sa_layers, _name))(by_name(_name, _formula))
