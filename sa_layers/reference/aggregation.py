"""Aggregation: the sum of a footprint, with a weight vector for every neighbour."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa_layers.reference.arrays import (
    Float64Array,
    FloatArray,
    check_array,
    check_grad_output,
    check_map,
    flatten_map,
    to_float64,
    unflatten_map,
)
from sa_layers.reference.compiled import compiled
from sa_layers.reference.footprint import Footprint, IntOrPair, make_footprint


def aggregation(
    value: FloatArray,
    weight: FloatArray,
    kernel_size: IntOrPair,
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
    groups: str = "interleaved",
) -> FloatArray:
    """Sum the values of each footprint, each multiplied by its own weight vector.

    The paper's Eq. 2 and 4, ``y_i = sum over j in R(i) of weight_ij * value_j``, where Cw weight channels are shared by
    C value channels.

    Args:
        value: (N, C, H, W), float16, float32 or float64.
        weight: (N, Cw, Kh*Kw, Ho*Wo), where Cw divides C; taps and pixels row-major.
        kernel_size: footprint, odd, an int or (height, width).
        stride: an int or a pair; Ho = ceil(H / stride).
        dilation: an int or a pair.
        padding_mode: 'reflect', 'zeros' where a neighbour outside the map has the value 0, or 'clamp'.
        groups: 'interleaved', where channel c uses weight ``c % Cw``, or 'contiguous', where it uses ``c // (C / Cw)``.

    Returns:
        (N, C, Ho, Wo), in the dtype to which NumPy promotes those of value and weight.

    Raises:
        TypeError: if an array is not a floating NumPy array, or a geometric argument not of ints.
        ValueError: if a shape does not fit, or an argument is out of range.

    Example:
        >>> value = np.array([[[[1.0, 2.0, 4.0]]]])
        >>> weight = np.ones((1, 1, 3, 3))
        >>> aggregation(value, weight, (1, 3), padding_mode="zeros")
        array([[[[3., 7., 6.]]]])
    """
    check_map("value", value)
    footprint = make_footprint(value.shape[2:], kernel_size, stride, dilation, padding_mode)
    check_weight("weight", weight, value, footprint)
    weights = weight_of_channels(groups, value.shape[1], weight.shape[1])

    output = np.zeros((*value.shape[:2], footprint.pixels))
    _aggregate(flatten_map(value), to_float64(weight), footprint.neighbours, weights, output)
    dtype = np.result_type(value, weight)
    return output.reshape(*value.shape[:2], *footprint.output_size).astype(dtype)


def aggregation_backward(
    grad_output: FloatArray,
    value: FloatArray,
    weight: FloatArray,
    kernel_size: IntOrPair,
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
    groups: str = "interleaved",
) -> tuple[FloatArray, FloatArray]:
    """Compute the gradients of `aggregation`.

    Args:
        grad_output: (N, C, Ho, Wo), the gradient of what `aggregation` returned.
        value: as given to `aggregation`, and so are all that follow.
        weight: see `aggregation`.
        kernel_size: see `aggregation`.
        stride: see `aggregation`.
        dilation: see `aggregation`.
        padding_mode: see `aggregation`.
        groups: see `aggregation`.

    Returns:
        The gradients of value and of weight, each with the shape and dtype of its input.

    Raises:
        TypeError: as `aggregation` does.
        ValueError: as `aggregation` does, or if ``grad_output`` does not have the shape of the output.

    Example:
        >>> value = np.array([[[[1.0, 2.0, 4.0]]]])
        >>> weight = np.ones((1, 1, 3, 3))
        >>> grad_output = np.array([[[[1.0, 0.0, 0.0]]]])
        >>> aggregation_backward(grad_output, value, weight, (1, 3))[0]  # reflected: the first pixel sees 2, 1, 2
        array([[[[1., 2., 0.]]]])
    """
    check_map("value", value)
    footprint = make_footprint(value.shape[2:], kernel_size, stride, dilation, padding_mode)
    check_weight("weight", weight, value, footprint)
    weights = weight_of_channels(groups, value.shape[1], weight.shape[1])
    check_grad_output(grad_output, (*value.shape[:2], *footprint.output_size))

    flat_value = flatten_map(value)
    grad_value = np.zeros_like(flat_value)
    grad_weight = np.zeros(weight.shape)
    flat_grad = to_float64(grad_output.reshape(*value.shape[:2], footprint.pixels))
    _aggregate_backward(
        flat_grad, flat_value, to_float64(weight), footprint.neighbours, weights, grad_value, grad_weight
    )
    return unflatten_map(grad_value, value), grad_weight.astype(weight.dtype)


def check_weight(name: str, weight: Any, value: FloatArray, footprint: Footprint) -> None:
    """Raise unless weight is (N, Cw, Kh*Kw, Ho*Wo), where Cw divides the channels of value."""
    check_array(name, weight)
    batch, channels = value.shape[:2]
    allowed = f"(N, Cw, Kh*Kw, Ho*Wo) = ({batch}, Cw, {footprint.taps}, {footprint.pixels})"
    if weight.ndim != 4 or (weight.shape[0], *weight.shape[2:]) != (batch, footprint.taps, footprint.pixels):
        raise ValueError(f"{name} must have shape {allowed}, got {weight.shape}")
    if weight.shape[1] < 1 or channels % weight.shape[1] != 0:
        raise ValueError(f"{name} must have channels that divide value's {channels}, got {weight.shape[1]} channels")


def weight_of_channels(groups: Any, channels: int, weight_channels: int) -> NDArray[np.int64]:
    """Return the weight channel that each channel of value uses."""
    if groups not in ("interleaved", "contiguous"):
        raise ValueError(f"groups must be 'interleaved' or 'contiguous', got {groups!r}")
    index = np.arange(channels, dtype=np.int64)
    return index % weight_channels if groups == "interleaved" else index // (channels // weight_channels)


@compiled
def _aggregate(
    value: Float64Array,
    weight: Float64Array,
    neighbours: NDArray[np.int64],
    weights: NDArray[np.int64],
    output: Float64Array,
) -> None:
    batch, channels, pixels = output.shape
    taps = weight.shape[2]
    for n in range(batch):
        for c in range(channels):
            w = weights[c]
            for i in range(pixels):
                for t in range(taps):
                    j = neighbours[i, t]
                    output[n, c, i] += weight[n, w, t, i] * value[n, c, j]


@compiled
def _aggregate_backward(
    grad_output: Float64Array,
    value: Float64Array,
    weight: Float64Array,
    neighbours: NDArray[np.int64],
    weights: NDArray[np.int64],
    grad_value: Float64Array,
    grad_weight: Float64Array,
) -> None:
    batch, channels, pixels = grad_output.shape
    taps = weight.shape[2]
    for n in range(batch):
        for c in range(channels):
            w = weights[c]
            for i in range(pixels):
                for t in range(taps):
                    j = neighbours[i, t]
                    grad_value[n, c, j] += weight[n, w, t, i] * grad_output[n, c, i]
                    grad_weight[n, w, t, i] += value[n, c, j] * grad_output[n, c, i]
