"""The position of a pair of pixels, concatenated to the relation of pairwise attention."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sa_layers.reference.arrays import Float64Array, FloatArray, check_array, to_float64
from sa_layers.reference.footprint import IntOrPair
from sa_layers.reference.pairwise_relation import pairwise_relation, pairwise_relation_backward


class PairPosition(NamedTuple):
    """The position p_ij of a pair: an affine map of the pixel's coordinates plus one of the neighbour's.

    ``p_ij = query @ (x_i, y_i, 1) + key @ (x_j, y_j, 1)``, with coordinates from -1 to 1 across the map. The paper's
    relative position is ``key = -query``; with complementary rows of zeros in each it is a concatenation. The second
    term is 0 for a neighbour outside the map under zero padding; a reflected neighbour has the coordinates of the pixel
    that is read.

    Args:
        query: (P, 3), float16, float32 or float64.
        key: (P, 3).
        size: (height, width) of the map across which coordinates run from -1 to 1. Defaults to None, the map at hand;
            otherwise the centre of the map at hand is 0.
    """

    query: FloatArray
    key: FloatArray
    size: tuple[int, int] | None = None


def pair_position(
    position: PairPosition,
    size: tuple[int, ...],
    kernel_size: IntOrPair,
    stride: IntOrPair,
    dilation: IntOrPair,
    padding_mode: str,
) -> Float64Array:
    """Encode the positions of all pairs of a map of this size: (1, P, Kh*Kw, Ho*Wo)."""
    grid = _grid(size, position.size)
    query, key = (np.tensordot(to_float64(matrix), grid, axes=1)[None] for matrix in position[:2])
    return to_float64(pairwise_relation(query, key, kernel_size, "summation", stride, dilation, padding_mode))


def pair_position_backward(
    grad_output: Float64Array,
    position: PairPosition,
    size: tuple[int, ...],
    kernel_size: IntOrPair,
    stride: IntOrPair,
    dilation: IntOrPair,
    padding_mode: str,
) -> PairPosition:
    """Compute the gradients of the two matrices of a position, as a :class:`PairPosition`."""
    grid = _grid(size, position.size)
    maps = np.zeros((1, len(position.query), *size))  # a sum's gradients do not depend on its terms
    gradients = pairwise_relation_backward(
        grad_output, maps, maps, kernel_size, "summation", stride, dilation, padding_mode
    )
    query, key = (np.tensordot(gradient[0], grid, axes=((1, 2), (1, 2))) for gradient in gradients)
    return position._replace(query=query.astype(position.query.dtype), key=key.astype(position.key.dtype))


def check_position(position: Any) -> int:
    """Raise unless position is None or a PairPosition; return the number of its channels P."""
    if position is None:
        return 0
    if not isinstance(position, PairPosition):
        raise TypeError(f"position must be a PairPosition or None, got {type(position).__name__}")
    check_array("position.query", position.query)
    check_array("position.key", position.key)
    shape = position.query.shape
    if len(shape) != 2 or shape[0] < 1 or shape[1] != 3:
        raise ValueError(f"position.query must have shape (P, 3), got {shape}")
    if position.key.shape != shape:
        raise ValueError(f"position.key must have the shape of position.query, {shape}, got {position.key.shape}")
    if position.size is not None and min(position.size) < 2:
        raise ValueError(f"position.size must be at least 2, got {position.size}")
    return int(shape[0])


def _grid(size: tuple[int, ...], scale: tuple[int, int] | None) -> Float64Array:
    """Return the coordinates (x, y, 1) of all pixels, (3, H, W)."""
    ones = np.ones(size)
    rows, columns = (_coordinates(*sides) for sides in zip(size, scale or (None, None), strict=True))
    return np.stack([columns[None, :] * ones, rows[:, None] * ones, ones])


def _coordinates(length: int, size: int | None) -> Float64Array:
    """Return the coordinates of the pixels along one axis."""
    index = np.arange(length, dtype=np.float64)
    if size is None:
        return index * 2 / max(length - 1, 1) - 1  # a single pixel is at -1, as in the official network
    return (index - (length - 1) / 2) * 2 / (size - 1)
