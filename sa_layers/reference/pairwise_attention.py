"""Pairwise attention: each neighbour of a pixel is weighted by its relation to the pixel."""

from __future__ import annotations

import numpy as np

from sa_layers.reference.arrays import FloatArray, check_relation, check_same_maps, check_value, to_float64
from sa_layers.reference.footprint import IntOrPair
from sa_layers.reference.mapping import (
    Mapping,
    Norm,
    apply_mapping,
    check_mapping,
    check_norm,
    check_weight_channels,
    normalize_and_rectify,
)
from sa_layers.reference.pairwise_relation import RELATIONS, count_channels, pairwise_relation
from sa_layers.reference.position import PairPosition, check_position, pair_position
from sa_layers.reference.softmax_aggregation import softmax_aggregation


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
    check_same_maps(query, key)
    check_value(value, query)
    check_relation(relation, RELATIONS)
    geometry = (stride, dilation, padding_mode)
    relation_channels = count_channels(relation, query.shape[1]) + check_position(position)
    check_weight_channels(check_mapping(mapping, relation_channels), value)
    check_norm("epilogue", epilogue, value.shape[1])

    features = pairwise_relation(to_float64(query), to_float64(key), kernel_size, relation, *geometry)
    if position is not None:
        encoded = pair_position(position, query.shape[2:], kernel_size, *geometry)
        features = np.concatenate([features, np.repeat(encoded, len(features), axis=0)], axis=1)
    logits = apply_mapping(to_float64(features), mapping)
    output = softmax_aggregation(to_float64(value), logits, kernel_size, *geometry)
    if epilogue is not None:
        output = normalize_and_rectify(to_float64(output), epilogue)
    return output.astype(np.result_type(query, key, value))
