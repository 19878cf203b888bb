"""Patchwise attention: a footprint as a whole determines the weight of each of its pixels."""

from __future__ import annotations

import numpy as np

from sa_layers.reference.aggregation import aggregation, aggregation_backward
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
from sa_layers.reference.footprint import Footprint, IntOrPair, make_footprint
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
from sa_layers.reference.patchwise_relation import (
    RELATIONS,
    count_channels,
    patchwise_relation,
    patchwise_relation_backward,
)


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
    geometry = (stride, dilation, padding_mode)
    footprint = _check(query, key, value, mapping, relation, epilogue, kernel_size, *geometry)
    features = to_float64(patchwise_relation(to_float64(query), to_float64(key), kernel_size, relation, *geometry))
    weight = _per_tap(apply_mapping(features, mapping), footprint)
    output = aggregation(to_float64(value), weight, kernel_size, *geometry)
    if epilogue is not None:
        output = normalize_and_rectify(to_float64(output), epilogue)
    return output.astype(np.result_type(query, key, value))


def patchwise_attention_backward(
    grad_output: FloatArray,
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
) -> tuple[FloatArray, AttentionGradients]:
    """Compute `patchwise_attention` and all of its gradients.

    A `FrozenNorm` has gradients of its scale and its shift. A `BatchNorm` takes its statistics from the features, and
    the gradient of the features passes through them.

    Args:
        grad_output: (N, C, Ho, Wo), the gradient of what `patchwise_attention` returns.
        query: as given to `patchwise_attention`, and so are all that follow.
        key: see `patchwise_attention`.
        value: see `patchwise_attention`.
        mapping: see `patchwise_attention`.
        kernel_size: see `patchwise_attention`.
        relation: see `patchwise_attention`.
        stride: see `patchwise_attention`.
        dilation: see `patchwise_attention`.
        padding_mode: see `patchwise_attention`.
        epilogue: see `patchwise_attention`.

    Returns:
        What `patchwise_attention` returns, and the gradients.

    Raises:
        TypeError: as `patchwise_attention` does.
        ValueError: as `patchwise_attention` does, or if ``grad_output`` does not have the shape of the output.

    Example:
        >>> from sa_layers.reference import FrozenNorm, MappingLayer
        >>> x = np.array([[[[1.0, 2.0, 6.0]]]])
        >>> norm = FrozenNorm(np.ones(4), np.zeros(4))
        >>> mapping = [MappingLayer(norm, np.zeros((3, 4)), np.array([0.25, 0.5, 0.25]))]  # a constant: a blur
        >>> grad_output = np.array([[[[4.0, 0.0, 0.0]]]])  # the first pixel sees 2, 1, 2
        >>> output, gradients = patchwise_attention_backward(grad_output, x, x, x, mapping, (1, 3))
        >>> gradients.value, gradients.mapping[0].bias
        (array([[[[2., 2., 0.]]]]), array([8., 4., 8.]))
    """
    geometry = (stride, dilation, padding_mode)
    footprint = _check(query, key, value, mapping, relation, epilogue, kernel_size, *geometry)
    check_grad_output(grad_output, (*value.shape[:2], *footprint.output_size))

    features = to_float64(patchwise_relation(to_float64(query), to_float64(key), kernel_size, relation, *geometry))
    outputs, wide_value, grad = apply_mapping(features, mapping), to_float64(value), to_float64(grad_output)
    weight, grad_epilogue = _per_tap(outputs, footprint), None
    output = to_float64(aggregation(wide_value, weight, kernel_size, *geometry))
    if epilogue is not None:
        grad, grad_epilogue = normalize_and_rectify_backward(grad, output, epilogue)
        output = normalize_and_rectify(output, epilogue)

    grad_value, grad_weight = aggregation_backward(grad, wide_value, weight, kernel_size, *geometry)
    grad_outputs = to_float64(grad_weight.reshape(outputs.shape))
    grad_features, grad_mapping = mapping_backward(grad_outputs, features, mapping)
    grad_query, grad_key = patchwise_relation_backward(
        grad_features, to_float64(query), to_float64(key), kernel_size, relation, *geometry
    )
    gradients = AttentionGradients(
        grad_query.astype(query.dtype),
        grad_key.astype(key.dtype),
        grad_value.astype(value.dtype),
        grad_mapping,
        epilogue=grad_epilogue,
    )
    return output.astype(np.result_type(query, key, value)), gradients


def _check(
    query: FloatArray,
    key: FloatArray,
    value: FloatArray,
    mapping: Mapping,
    relation: str,
    epilogue: Norm | None,
    kernel_size: IntOrPair,
    stride: IntOrPair,
    dilation: IntOrPair,
    padding_mode: str,
) -> Footprint:
    check_same_maps(query, key)
    check_value(value, query)
    check_relation(relation, RELATIONS)
    footprint = make_footprint(query.shape[2:], kernel_size, stride, dilation, padding_mode)
    outputs = check_mapping(mapping, count_channels(relation, query.shape[1], footprint.taps))
    check_weight_channels(outputs, value, footprint.taps)
    check_norm("epilogue", epilogue, value.shape[1])
    return footprint


def _per_tap(outputs: Float64Array, footprint: Footprint) -> Float64Array:
    """Give the outputs of the mapping, (N, Cw * Kh*Kw, 1, Ho*Wo), the shape of weights: (N, Cw, Kh*Kw, Ho*Wo)."""
    batch, channels, _, pixels = outputs.shape
    return outputs.reshape(batch, channels // footprint.taps, footprint.taps, pixels)
