"""Pairwise relation of a pixel to each neighbour."""

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

RELATIONS = ("summation", "subtraction", "hadamard", "dot", "concatenation")
# Integers, since Numba compiles comparisons of strings slowly.
SUMMATION, SUBTRACTION, HADAMARD, DOT, CONCATENATION = range(len(RELATIONS))


def pairwise_relation(
    query: FloatArray,
    key: FloatArray,
    kernel_size: IntOrPair,
    relation: str = "subtraction",
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
) -> FloatArray:
    """Relate each pixel i to each neighbour j of its footprint.

    The delta(x_i, x_j) of the paper's Eq. 3, with query = phi(x) and key = psi(x):

    ===============  ======================  =====
    relation         delta(x_i, x_j)         D
    ===============  ======================  =====
    'summation'      query_i + key_j         C
    'subtraction'    query_i - key_j         C
    'hadamard'       query_i * key_j         C
    'dot'            query_i . key_j         1
    'concatenation'  [query_i, key_j]        2 * C
    ===============  ======================  =====

    Args:
        query: (N, C, H, W), float16, float32 or float64; read at the footprints' centres.
        key: (N, C, H, W).
        kernel_size: footprint, odd, an int or (height, width).
        relation: one of the five above.
        stride: an int or a pair; Ho = ceil(H / stride).
        dilation: an int or a pair.
        padding_mode: 'reflect'; 'zeros', where key is 0 outside the map, so that 'subtraction' leaves query_i; or
            'clamp'.

    Returns:
        (N, D, Kh*Kw, Ho*Wo), taps and pixels row-major, in the dtype to which NumPy promotes those of query and key.

    Raises:
        TypeError: if an array is not a floating NumPy array, or a geometric argument not of ints.
        ValueError: if a shape does not fit, or an argument is out of range.

    Example:
        >>> query = np.array([[[[10.0, 20.0, 30.0]]]])
        >>> key = np.array([[[[1.0, 2.0, 3.0]]]])
        >>> pairwise_relation(query, key, (1, 3))[0, 0]  # a row for each tap: left, centre, right
        array([[ 8., 19., 28.],
               [ 9., 18., 27.],
               [ 8., 17., 28.]])
    """
    check_same_maps(query, key)
    check_relation(relation, RELATIONS)
    footprint = make_footprint(query.shape[2:], kernel_size, stride, dilation, padding_mode)

    output = np.zeros((query.shape[0], count_channels(relation, query.shape[1]), footprint.taps, footprint.pixels))
    kind = RELATIONS.index(relation)
    _relate(flatten_map(query), flatten_map(key), footprint.centres, footprint.neighbours, kind, output)
    return output.astype(np.result_type(query, key))


def pairwise_relation_backward(
    grad_output: FloatArray,
    query: FloatArray,
    key: FloatArray,
    kernel_size: IntOrPair,
    relation: str = "subtraction",
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
) -> tuple[FloatArray, FloatArray]:
    """Compute the gradients of `pairwise_relation`.

    Args:
        grad_output: (N, D, Kh*Kw, Ho*Wo), the gradient of what `pairwise_relation` returned.
        query: as given to `pairwise_relation`, and so are all that follow.
        key: see `pairwise_relation`.
        kernel_size: see `pairwise_relation`.
        relation: see `pairwise_relation`.
        stride: see `pairwise_relation`.
        dilation: see `pairwise_relation`.
        padding_mode: see `pairwise_relation`.

    Returns:
        The gradients of query and of key, each with the shape and dtype of its input.

    Raises:
        TypeError: as `pairwise_relation` does.
        ValueError: as `pairwise_relation` does, or if ``grad_output`` does not have the shape of the output.

    Example:
        >>> query = key = np.zeros((1, 1, 1, 3))
        >>> grad_query, grad_key = pairwise_relation_backward(np.ones((1, 1, 3, 3)), query, key, (1, 3))
        >>> grad_query, grad_key  # the middle pixel is seen five times: once by itself, twice by each neighbour
        (array([[[[3., 3., 3.]]]]), array([[[[-2., -5., -2.]]]]))
    """
    check_same_maps(query, key)
    check_relation(relation, RELATIONS)
    footprint = make_footprint(query.shape[2:], kernel_size, stride, dilation, padding_mode)
    relation_channels = count_channels(relation, query.shape[1])
    check_grad_output(grad_output, (query.shape[0], relation_channels, footprint.taps, footprint.pixels))

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


def count_channels(relation: str, channels: int) -> int:
    """Return D, the channels of the relation."""
    return {"dot": 1, "concatenation": 2 * channels}.get(relation, channels)


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
                for t in range(taps):
                    key_j = key[n, c, neighbours[i, t]]
                    if relation == SUMMATION:
                        output[n, c, t, i] = query_i + key_j
                    elif relation == SUBTRACTION:
                        output[n, c, t, i] = query_i - key_j
                    elif relation == HADAMARD:
                        output[n, c, t, i] = query_i * key_j
                    elif relation == DOT:
                        output[n, 0, t, i] += query_i * key_j
                    elif relation == CONCATENATION:
                        output[n, c, t, i] = query_i
                        output[n, channels + c, t, i] = key_j


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
                for t in range(taps):
                    j = neighbours[i, t]
                    if relation == SUMMATION:
                        grad_query[n, c, centre] += grad_output[n, c, t, i]
                        grad_key[n, c, j] += grad_output[n, c, t, i]
                    elif relation == SUBTRACTION:
                        grad_query[n, c, centre] += grad_output[n, c, t, i]
                        grad_key[n, c, j] -= grad_output[n, c, t, i]
                    elif relation == HADAMARD:
                        grad_query[n, c, centre] += grad_output[n, c, t, i] * key[n, c, j]
                        grad_key[n, c, j] += grad_output[n, c, t, i] * query[n, c, centre]
                    elif relation == DOT:
                        grad_query[n, c, centre] += grad_output[n, 0, t, i] * key[n, c, j]
                        grad_key[n, c, j] += grad_output[n, 0, t, i] * query[n, c, centre]
                    elif relation == CONCATENATION:
                        grad_query[n, c, centre] += grad_output[n, c, t, i]
                        grad_key[n, c, j] += grad_output[n, channels + c, t, i]
