"""Pairwise attention: each neighbour of a pixel is weighted by its relation to the pixel."""

from __future__ import annotations

import numpy as np

from sa_layers.reference.arrays import (
    Float64Array,
    FloatArray,
    check_grad_output,
    check_relation,
    check_same_maps,
    check_value,
    to_float64,
)
from sa_layers.reference.attention_gradients import AttentionGradients
from sa_layers.reference.footprint import IntOrPair, make_footprint
from sa_layers.reference.mapping import (
    Mapping,
    Norm,
    apply_mapping,
    check_mapping,
    check_norm,
    check_weight_channels,
    normalize_and_rectify,
)
from sa_layers.reference.mapping_backward import mapping_backward, normalize_and_rectify_backward
from sa_layers.reference.pairwise_relation import (
    RELATIONS,
    count_channels,
    pairwise_relation,
    pairwise_relation_backward,
)
from sa_layers.reference.position import PairPosition, check_position, pair_position, pair_position_backward
from sa_layers.reference.softmax_aggregation import softmax_aggregation, softmax_aggregation_backward


def pairwise_attention(
    query: FloatArray,
    key: FloatArray,
    value: FloatArray,
    mapping: Mapping,
    kernel_size: IntOrPair,
    relation: str = "subtraction",
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
    *,
    position: PairPosition | None = None,
    epilogue: Norm | None = None,
) -> FloatArray:
    """Sum the values of each footprint, each weighted by the relation of its pixel to the centre.

    ``y_i = sum over j in R(i) of softmax_j(gamma([delta(x_i, x_j), p_ij])) * value_j``: the paper's Eq. 2 with the
    weights of Eq. 3, the position p_ij of the pair, and the softmax over the footprint of the official network.

    Args:
        query: phi(x), (N, Cr, H, W), float16, float32 or float64.
        key: psi(x), (N, Cr, H, W).
        value: beta(x), (N, C, H, W).
        mapping: gamma, layers from the D channels of the relation and the P of the position to Cw, which divides C;
            channel c uses weight ``c % Cw``. A `BatchNorm` in it takes its statistics over all pairs of the batch.
        kernel_size: Footprint, odd, an int or (height, width).
        relation: delta, see `pairwise_relation` for the five and for D. Defaults to 'subtraction'.
        stride: An int or a pair; Ho = ceil(H / stride). Defaults to 1.
        dilation: An int or a pair. Defaults to 1.
        padding_mode: 'reflect' (default), or 'zeros' where key and value are 0 outside the map.
        position: p, or None (default) for none.
        epilogue: A norm of the C channels of the output, which a ReLU follows, or None (default) for neither.

    Returns:
        (N, C, Ho, Wo), in the dtype to which NumPy promotes those of query, key and value.

    Raises:
        TypeError: If an array is not a floating NumPy array, or another argument not of the type above.
        ValueError: If a shape does not fit, or an argument is out of range.

    Example:
        >>> from sa_layers.reference import FrozenNorm, MappingLayer
        >>> x = np.array([[[[1.0, 2.0, 6.0]]]])
        >>> mapping = [MappingLayer(FrozenNorm(np.ones(1), np.zeros(1)), np.zeros((1, 1)))]  # equal logits: the mean
        >>> pairwise_attention(x, x, x, mapping, (1, 3))
        array([[[[1.66666667, 3.        , 3.33333333]]]])
    """
    geometry = (stride, dilation, padding_mode)
    _check(query, key, value, mapping, relation, position, epilogue)
    features = _relate(query, key, position, kernel_size, relation, *geometry)
    output = softmax_aggregation(to_float64(value), apply_mapping(features, mapping), kernel_size, *geometry)
    if epilogue is not None:
        output = normalize_and_rectify(to_float64(output), epilogue)
    return output.astype(np.result_type(query, key, value))


def pairwise_attention_backward(
    grad_output: FloatArray,
    query: FloatArray,
    key: FloatArray,
    value: FloatArray,
    mapping: Mapping,
    kernel_size: IntOrPair,
    relation: str = "subtraction",
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
    *,
    position: PairPosition | None = None,
    epilogue: Norm | None = None,
) -> tuple[FloatArray, AttentionGradients]:
    """Compute `pairwise_attention` and all of its gradients.

    A `FrozenNorm` has gradients of its scale and its shift. A `BatchNorm` takes its statistics from the features, and
    the gradient of the features passes through them.

    Args:
        grad_output: (N, C, Ho, Wo), the gradient of what `pairwise_attention` returns.
        query: as given to `pairwise_attention`, and so are all that follow.
        key: see `pairwise_attention`.
        value: see `pairwise_attention`.
        mapping: see `pairwise_attention`.
        kernel_size: see `pairwise_attention`.
        relation: see `pairwise_attention`.
        stride: see `pairwise_attention`.
        dilation: see `pairwise_attention`.
        padding_mode: see `pairwise_attention`.
        position: see `pairwise_attention`.
        epilogue: see `pairwise_attention`.

    Returns:
        What `pairwise_attention` returns, and the gradients.

    Raises:
        TypeError: as `pairwise_attention` does.
        ValueError: as `pairwise_attention` does, or if ``grad_output`` does not have the shape of the output.

    Example:
        >>> from sa_layers.reference import FrozenNorm, MappingLayer
        >>> x = np.array([[[[1.0, 2.0, 6.0]]]])
        >>> mapping = [MappingLayer(FrozenNorm(np.ones(1), np.zeros(1)), np.zeros((1, 1)))]  # equal logits: the mean
        >>> grad_output = np.array([[[[3.0, 0.0, 0.0]]]])  # the first pixel sees 2, 1, 2, with differences -1, 0, -1
        >>> output, gradients = pairwise_attention_backward(grad_output, x, x, x, mapping, (1, 3))
        >>> gradients.value
        array([[[[1., 2., 0.]]]])
        >>> gradients.mapping[0].weight  # a ReLU follows the norm: all of these neighbours are as important as before
        array([[0.]])
    """
    geometry = (stride, dilation, padding_mode)
    _check(query, key, value, mapping, relation, position, epilogue)
    footprint = make_footprint(query.shape[2:], kernel_size, *geometry)
    check_grad_output(grad_output, (*value.shape[:2], *footprint.output_size))

    features = _relate(query, key, position, kernel_size, relation, *geometry)
    logits, wide_value, grad = apply_mapping(features, mapping), to_float64(value), to_float64(grad_output)
    output, grad_epilogue = to_float64(softmax_aggregation(wide_value, logits, kernel_size, *geometry)), None
    if epilogue is not None:
        grad, grad_epilogue = normalize_and_rectify_backward(grad, output, epilogue)
        output = normalize_and_rectify(output, epilogue)

    grad_value, grad_logits = softmax_aggregation_backward(grad, wide_value, logits, kernel_size, *geometry)
    grad_features, grad_mapping = mapping_backward(to_float64(grad_logits), features, mapping)
    channels, grad_position = count_channels(relation, query.shape[1]), None
    if position is not None:
        summed = grad_features[:, channels:].sum(0, keepdims=True)  # all images have the same positions
        grad_position = pair_position_backward(summed, position, query.shape[2:], kernel_size, *geometry)
    grad_query, grad_key = pairwise_relation_backward(
        grad_features[:, :channels], to_float64(query), to_float64(key), kernel_size, relation, *geometry
    )
    gradients = AttentionGradients(
        grad_query.astype(query.dtype),
        grad_key.astype(key.dtype),
        grad_value.astype(value.dtype),
        grad_mapping,
        grad_position,
        grad_epilogue,
    )
    return output.astype(np.result_type(query, key, value)), gradients


def _check(
    query: FloatArray,
    key: FloatArray,
    value: FloatArray,
    mapping: Mapping,
    relation: str,
    position: PairPosition | None,
    epilogue: Norm | None,
) -> None:
    check_same_maps(query, key)
    check_value(value, query)
    check_relation(relation, RELATIONS)
    relation_channels = count_channels(relation, query.shape[1]) + check_position(position)
    check_weight_channels(check_mapping(mapping, relation_channels), value)
    check_norm("epilogue", epilogue, value.shape[1])


def _relate(
    query: FloatArray,
    key: FloatArray,
    position: PairPosition | None,
    kernel_size: IntOrPair,
    relation: str,
    stride: IntOrPair,
    dilation: IntOrPair,
    padding_mode: str,
) -> Float64Array:
    """Return the features of all pairs, relation and position: (N, D + P, Kh*Kw, Ho*Wo)."""
    geometry = (stride, dilation, padding_mode)
    features = to_float64(pairwise_relation(to_float64(query), to_float64(key), kernel_size, relation, *geometry))
    if position is None:
        return features
    encoded = pair_position(position, query.shape[2:], kernel_size, *geometry)
    return np.concatenate([features, np.repeat(encoded, len(features), axis=0)], axis=1)
