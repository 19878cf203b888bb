"""Patchwise attention: a footprint as a whole determines the weight of each of its pixels."""

from __future__ import annotations

import numpy as np

from sa_layers.reference.aggregation import aggregation
from sa_layers.reference.arrays import FloatArray, check_relation, check_same_maps, check_value, to_float64
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
from sa_layers.reference.patchwise_relation import RELATIONS, count_channels, patchwise_relation


def patchwise_attention(
    query: FloatArray,
    key: FloatArray,
    value: FloatArray,
    mapping: Mapping,
    kernel_size: IntOrPair,
    relation: str = "concatenation",
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
    *,
    epilogue: Norm | None = None,
) -> FloatArray:
    """Sum the values of each footprint, weighted by what the mapping makes of the footprint as a whole.

    ``y_i = sum over j in R(i) of gamma(delta(x_R(i)))_j * value_j``: the paper's Eq. 4 with the weights of Eq. 5, and
    no softmax.

    Args:
        query: phi(x), (N, Cr, H, W), float16, float32 or float64.
        key: psi(x), (N, Cr, H, W).
        value: beta(x), (N, C, H, W).
        mapping: gamma, layers from the D channels of the relation to the weights of all taps, Cw * Kh*Kw, where Cw
            divides C: output ``w * Kh*Kw + j`` weights tap j of every channel c with ``c % Cw == w``. A `BatchNorm` in
            it takes its statistics over all pixels of the batch.
        kernel_size: Footprint, odd, an int or (height, width).
        relation: delta, see `patchwise_relation` for the three and for D. Defaults to 'concatenation'.
        stride: An int or a pair; Ho = ceil(H / stride). Defaults to 1.
        dilation: An int or a pair. Defaults to 1.
        padding_mode: 'reflect' (default), or 'zeros' where query, key and value are 0 outside the map.
        epilogue: A norm of the C channels of the output, which a ReLU follows, or None (default) for neither.

    Returns:
        (N, C, Ho, Wo), in the dtype to which NumPy promotes those of query, key and value.

    Raises:
        TypeError: If an array is not a floating NumPy array, or another argument not of the type above.
        ValueError: If a shape does not fit, or an argument is out of range.

    Example:
        >>> from sa_layers.reference import FrozenNorm, MappingLayer
        >>> x = np.array([[[[1.0, 2.0, 6.0]]]])
        >>> norm = FrozenNorm(np.ones(4), np.zeros(4))
        >>> mapping = [MappingLayer(norm, np.zeros((3, 4)), np.array([0.25, 0.5, 0.25]))]  # a constant: a blur
        >>> patchwise_attention(x, x, x, mapping, (1, 3))
        array([[[[1.5 , 2.75, 4.  ]]]])
    """
    check_same_maps(query, key)
    check_value(value, query)
    check_relation(relation, RELATIONS)
    geometry = (stride, dilation, padding_mode)
    taps = make_footprint(query.shape[2:], kernel_size, *geometry).taps
    check_weight_channels(check_mapping(mapping, count_channels(relation, query.shape[1], taps)), value, taps)
    check_norm("epilogue", epilogue, value.shape[1])

    features = patchwise_relation(to_float64(query), to_float64(key), kernel_size, relation, *geometry)
    weight = apply_mapping(to_float64(features), mapping)  # (N, Cw * Kh*Kw, 1, Ho*Wo)
    weight = weight.reshape(len(weight), weight.shape[1] // taps, taps, weight.shape[3])
    output = aggregation(to_float64(value), weight, kernel_size, *geometry)
    if epilogue is not None:
        output = normalize_and_rectify(to_float64(output), epilogue)
    return output.astype(np.result_type(query, key, value))
