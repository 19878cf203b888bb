"""Patchwise relation: one vector for a whole footprint."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sa_layers.reference.arrays import (
    Float64Array,
    FloatArray,
    check_grad_output,
    check_relation,
    check_same_maps,
    flatten_map,
    to_float64,
    unflatten_map,
)
from sa_layers.reference.compiled import compiled
from sa_layers.reference.footprint import IntOrPair, make_footprint

RELATIONS = ("star", "clique", "concatenation")
# Integers, since Numba compiles comparisons of strings slowly.
STAR, CLIQUE, CONCATENATION = range(len(RELATIONS))


def patchwise_relation(
    query: FloatArray,
    key: FloatArray,
    kernel_size: IntOrPair,
    relation: str = "concatenation",
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
) -> FloatArray:
    """Describe each footprint by one vector.

    The delta(x_R(i)) of the paper's Eq. 5, with query = phi(x), key = psi(x) and T = Kh*Kw taps:

    ===============  =====================================================  ===========  ===================
    relation         delta(x_R(i))                                          D            channel
    ===============  =====================================================  ===========  ===================
    'star'           query_i . key_j for each j in R(i)                     T            j
    'clique'         query_j . key_k for each j and k in R(i)               T * T        j*T + k
    'concatenation'  [query_i, key_j for each j in R(i)]                    C * (1 + T)  c, then C + c*T + j
    ===============  =====================================================  ===========  ===================

    Args:
        query: (N, C, H, W), float16, float32 or float64.
        key: (N, C, H, W).
        kernel_size: footprint, odd, an int or (height, width).
        relation: one of the three above.
        stride: an int or a pair; Ho = ceil(H / stride).
        dilation: an int or a pair.
        padding_mode: 'reflect', or 'zeros' where query and key are 0 outside the map.

    Returns:
        (N, D, 1, Ho*Wo), pixels row-major, in the dtype to which NumPy promotes those of query and key.

    Raises:
        TypeError: if an array is not a floating NumPy array, or a geometric argument not of ints.
        ValueError: if a shape does not fit, or an argument is out of range.

    Example:
        >>> query = np.array([[[[10.0, 20.0, 30.0]]]])
        >>> key = np.array([[[[1.0, 2.0, 3.0]]]])
        >>> patchwise_relation(query, key, (1, 3))[0, :, 0, :]  # a column for each pixel
        array([[10., 20., 30.],
               [ 2.,  1.,  2.],
               [ 1.,  2.,  3.],
               [ 2.,  3.,  2.]])
    """
    check_same_maps(query, key)
    check_relation(relation, RELATIONS)
    footprint = make_footprint(query.shape[2:], kernel_size, stride, dilation, padding_mode)

    relation_channels = count_channels(relation, query.shape[1], footprint.taps)
    output = np.zeros((query.shape[0], relation_channels, 1, footprint.pixels))
    kind = RELATIONS.index(relation)
    _relate(flatten_map(query), flatten_map(key), footprint.centres, footprint.neighbours, kind, output)
    return output.astype(np.result_type(query, key))


def patchwise_relation_backward(
    grad_output: FloatArray,
    query: FloatArray,
    key: FloatArray,
    kernel_size: IntOrPair,
    relation: str = "concatenation",
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
) -> tuple[FloatArray, FloatArray]:
    """Compute the gradients of `patchwise_relation`.

    Args:
        grad_output: (N, D, 1, Ho*Wo), the gradient of what `patchwise_relation` returned.
        query: as given to `patchwise_relation`, and so are all that follow.
        key: see `patchwise_relation`.
        kernel_size: see `patchwise_relation`.
        relation: see `patchwise_relation`.
        stride: see `patchwise_relation`.
        dilation: see `patchwise_relation`.
        padding_mode: see `patchwise_relation`.

    Returns:
        The gradients of query and of key, each with the shape and dtype of its input.

    Raises:
        TypeError: as `patchwise_relation` does.
        ValueError: as `patchwise_relation` does, or if ``grad_output`` does not have the shape of the output.

    Example:
        >>> query = key = np.zeros((1, 1, 1, 3))
        >>> grad_query, grad_key = patchwise_relation_backward(np.ones((1, 4, 1, 3)), query, key, (1, 3))
        >>> grad_query, grad_key  # the middle pixel is seen five times: once by itself, twice by each neighbour
        (array([[[[1., 1., 1.]]]]), array([[[[2., 5., 2.]]]]))
    """
    check_same_maps(query, key)
    check_relation(relation, RELATIONS)
    footprint = make_footprint(query.shape[2:], kernel_size, stride, dilation, padding_mode)
    relation_channels = count_channels(relation, query.shape[1], footprint.taps)
    check_grad_output(grad_output, (query.shape[0], relation_channels, 1, footprint.pixels))

    flat_query, flat_key = flatten_map(query), flatten_map(key)
    grad_query, grad_key = np.zeros_like(flat_query), np.zeros_like(flat_key)
    _relate_backward(
        to_float64(grad_output),
        flat_query,
        flat_key,
        footprint.centres,
        footprint.neighbours,
        RELATIONS.index(relation),
        grad_query,
        grad_key,
    )
    return unflatten_map(grad_query, query), unflatten_map(grad_key, key)


def count_channels(relation: str, channels: int, taps: int) -> int:
    """Return D, the channels of the relation."""
    return {"star": taps, "clique": taps * taps, "concatenation": channels * (1 + taps)}[relation]


@compiled
def _relate(
    query: Float64Array,
    key: Float64Array,
    centres: NDArray[np.int64],
    neighbours: NDArray[np.int64],
    relation: int,
    output: Float64Array,
) -> None:
    batch, channels = query.shape[0], query.shape[1]
    pixels, taps = neighbours.shape
    for n in range(batch):
        for c in range(channels):
            for i in range(pixels):
                query_i = query[n, c, centres[i]]
                if relation == CONCATENATION:
                    output[n, c, 0, i] = query_i
                for j in range(taps):
                    key_j = key[n, c, neighbours[i, j]]
                    if relation == STAR:
                        output[n, j, 0, i] += query_i * key_j
                    elif relation == CLIQUE:
                        query_j = query[n, c, neighbours[i, j]]
                        for k in range(taps):
                            output[n, j * taps + k, 0, i] += query_j * key[n, c, neighbours[i, k]]
                    elif relation == CONCATENATION:
                        output[n, channels + c * taps + j, 0, i] = key_j


@compiled
def _relate_backward(
    grad_output: Float64Array,
    query: Float64Array,
    key: Float64Array,
    centres: NDArray[np.int64],
    neighbours: NDArray[np.int64],
    relation: int,
    grad_query: Float64Array,
    grad_key: Float64Array,
) -> None:
    batch, channels = query.shape[0], query.shape[1]
    pixels, taps = neighbours.shape
    for n in range(batch):
        for c in range(channels):
            for i in range(pixels):
                centre = centres[i]
                if relation == CONCATENATION:
                    grad_query[n, c, centre] += grad_output[n, c, 0, i]
                for j in range(taps):
                    pixel_j = neighbours[i, j]
                    if relation == STAR:
                        grad_query[n, c, centre] += grad_output[n, j, 0, i] * key[n, c, pixel_j]
                        grad_key[n, c, pixel_j] += grad_output[n, j, 0, i] * query[n, c, centre]
                    elif relation == CLIQUE:
                        for k in range(taps):
                            pixel_k = neighbours[i, k]
                            grad = grad_output[n, j * taps + k, 0, i]
                            grad_query[n, c, pixel_j] += grad * key[n, c, pixel_k]
                            grad_key[n, c, pixel_k] += grad * query[n, c, pixel_j]
                    elif relation == CONCATENATION:
                        grad_key[n, c, pixel_j] += grad_output[n, channels + c * taps + j, 0, i]
