"""A softmax over the footprint, then aggregation: the end of pairwise attention."""

from __future__ import annotations

import math

import numpy as np

from sa_layers.reference.aggregation import aggregation, aggregation_backward, check_weight
from sa_layers.reference.arrays import Float64Array, FloatArray, check_map, to_float64
from sa_layers.reference.compiled import compiled
from sa_layers.reference.footprint import IntOrPair, make_footprint


def softmax_aggregation(
    value: FloatArray,
    logits: FloatArray,
    kernel_size: IntOrPair,
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
    groups: str = "interleaved",
) -> FloatArray:
    """Average the values of each footprint, weighted by a softmax over its taps.

    ``y_i = sum over j in R(i) of softmax_j(logits_ij) * value_j``: the paper's Eq. 2 with the softmax that the official
    network puts at the end of the mapping gamma. A neighbour outside the map, under zero padding, takes part in the
    softmax with the value 0.

    Args:
        value: (N, C, H, W), float16, float32 or float64.
        logits: (N, Cw, Kh*Kw, Ho*Wo), where Cw divides C.
        kernel_size: footprint, odd, an int or (height, width).
        stride: an int or a pair; Ho = ceil(H / stride).
        dilation: an int or a pair.
        padding_mode: 'reflect', 'zeros' or 'clamp'.
        groups: 'interleaved', where channel c uses ``logits[:, c % Cw]``, or 'contiguous', where it uses
            ``logits[:, c // (C / Cw)]``.

    Returns:
        (N, C, Ho, Wo), in the dtype to which NumPy promotes those of value and logits.

    Raises:
        TypeError: if an array is not a floating NumPy array, or a geometric argument not of ints.
        ValueError: if a shape does not fit, or an argument is out of range.

    Example:
        >>> value = np.array([[[[1.0, 2.0, 6.0]]]])
        >>> softmax_aggregation(value, np.zeros((1, 1, 3, 3)), (1, 3), padding_mode="zeros")  # equal logits: the mean
        array([[[[1.        , 3.        , 2.66666667]]]])
    """
    check_map("value", value)
    check_weight("logits", logits, value, make_footprint(value.shape[2:], kernel_size, stride, dilation, padding_mode))

    # The weight stays in float64 between the two steps; only the result is rounded.
    output = aggregation(value, _softmax(to_float64(logits)), kernel_size, stride, dilation, padding_mode, groups)
    return output.astype(np.result_type(value, logits))


def softmax_aggregation_backward(
    grad_output: FloatArray,
    value: FloatArray,
    logits: FloatArray,
    kernel_size: IntOrPair,
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
    groups: str = "interleaved",
) -> tuple[FloatArray, FloatArray]:
    """Compute the gradients of `softmax_aggregation`.

    Args:
        grad_output: (N, C, Ho, Wo), the gradient of what `softmax_aggregation` returned.
        value: as given to `softmax_aggregation`, and so are all that follow.
        logits: see `softmax_aggregation`.
        kernel_size: see `softmax_aggregation`.
        stride: see `softmax_aggregation`.
        dilation: see `softmax_aggregation`.
        padding_mode: see `softmax_aggregation`.
        groups: see `softmax_aggregation`.

    Returns:
        The gradients of value and of logits, each with the shape and dtype of its input.

    Raises:
        TypeError: as `softmax_aggregation` does.
        ValueError: as `softmax_aggregation` does, or if ``grad_output`` does not have the shape of the output.

    Example:
        >>> value = np.array([[[[3.0, 6.0]]]])
        >>> grad_output = np.array([[[[1.0, 0.0]]]])
        >>> _, grad_logits = softmax_aggregation_backward(grad_output, value, np.zeros((1, 1, 3, 2)), (1, 3))
        >>> grad_logits[0, 0, :, 0].round(3)  # neighbours 6, 3, 6, mean 5: (6 - 5) / 3, (3 - 5) / 3, (6 - 5) / 3
        array([ 0.333, -0.667,  0.333])
    """
    check_map("value", value)
    check_weight("logits", logits, value, make_footprint(value.shape[2:], kernel_size, stride, dilation, padding_mode))

    weight = _softmax(to_float64(logits))
    grad_value, grad_weight = aggregation_backward(
        grad_output, value, weight, kernel_size, stride, dilation, padding_mode, groups
    )
    return grad_value, _softmax_backward(to_float64(grad_weight), weight).astype(logits.dtype)


@compiled
def _softmax(logits: Float64Array) -> Float64Array:
    weight = np.empty_like(logits)
    batch, channels, taps, pixels = logits.shape
    for n in range(batch):
        for c in range(channels):
            for i in range(pixels):
                largest = -math.inf
                for t in range(taps):
                    largest = max(largest, logits[n, c, t, i])
                total = 0.0
                for t in range(taps):
                    weight[n, c, t, i] = math.exp(logits[n, c, t, i] - largest)  # at most 1: nothing overflows
                    total += weight[n, c, t, i]
                for t in range(taps):
                    weight[n, c, t, i] /= total
    return weight


@compiled
def _softmax_backward(grad_weight: Float64Array, weight: Float64Array) -> Float64Array:
    grad_logits = np.empty_like(weight)
    batch, channels, taps, pixels = weight.shape
    for n in range(batch):
        for c in range(channels):
            for i in range(pixels):
                mean = 0.0  # of grad_weight, under weight
                for t in range(taps):
                    mean += weight[n, c, t, i] * grad_weight[n, c, t, i]
                for t in range(taps):
                    grad_logits[n, c, t, i] = weight[n, c, t, i] * (grad_weight[n, c, t, i] - mean)
    return grad_logits
