"""The footprint R(i): the input pixels j that an output pixel i attends to."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

IntOrPair: TypeAlias = int | tuple[int, int]

PADDING_MODES = ("reflect", "zeros", "clamp")
OUTSIDE = -1


@dataclass(frozen=True)
class Footprint:
    """The footprints of all output pixels, as indices into the flattened map.

    Attributes:
        neighbours: (Ho*Wo, Kh*Kw) int64; ``neighbours[i, t]`` is the input pixel j under tap t = kh*Kw + kw of output
            pixel i, both row-major. A pixel outside the map, under zero padding, is the index H*W, one past the last.
        centres: (Ho*Wo,) int64; the input pixel at the centre of each footprint, at row and column (i, j) * stride.
        output_size: (Ho, Wo) = (ceil(H / stride_h), ceil(W / stride_w)).
    """

    neighbours: NDArray[np.int64]
    centres: NDArray[np.int64]
    output_size: tuple[int, int]

    @property
    def taps(self) -> int:
        """The number of neighbours of one pixel, Kh*Kw."""
        return int(self.neighbours.shape[1])

    @property
    def pixels(self) -> int:
        """The number of output pixels, Ho*Wo."""
        return int(self.neighbours.shape[0])


def make_footprint(
    size: tuple[int, ...],
    kernel_size: IntOrPair,
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
) -> Footprint:
    """List the neighbours of every output pixel.

    Padding is ``dilation * (kernel_size - 1) / 2`` on each side, so the output's size is ``ceil(size / stride)``. Under
    'reflect', an index is reflected at the borders repeatedly if needed, as ``numpy.pad(mode='reflect')`` does. Under
    'clamp', a footprint that would reach over the border is moved inwards, along the axis of the pixels that are
    multiples of ``dilation`` apart.

    Args:
        size: height and width of the input map.
        kernel_size: height and width of the footprint, odd; one int for both.
        stride: step between two output pixels, at least 1.
        dilation: step between two neighbours, at least 1.
        padding_mode: 'reflect', 'zeros' or 'clamp'.

    Returns:
        The footprint of each output pixel.

    Raises:
        TypeError: if a geometric argument is not an int or a pair of ints.
        ValueError: if one is out of range, ``padding_mode`` is unknown, or the map too small for 'clamp'.

    Example:
        >>> make_footprint((1, 4), (1, 3)).neighbours.tolist()
        [[1, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 2]]
    """
    height, width = _check_pair("size", size)
    kernel_height, kernel_width = _check_pair("kernel_size", kernel_size, odd=True)
    stride_height, stride_width = _check_pair("stride", stride)
    dilation_height, dilation_width = _check_pair("dilation", dilation)
    if padding_mode not in PADDING_MODES:
        raise ValueError(f"padding_mode must be 'reflect', 'zeros' or 'clamp', got {padding_mode!r}")
    if padding_mode == "clamp" and (height < kernel_height * dilation_height or width < kernel_width * dilation_width):
        raise ValueError(
            f"padding_mode 'clamp' needs a map of at least kernel_size * dilation, "
            f"({kernel_height * dilation_height}, {kernel_width * dilation_width}) pixels, got ({height}, {width})"
        )

    rows = _positions(height, kernel_height, stride_height, dilation_height, padding_mode)[:, None, :, None]
    columns = _positions(width, kernel_width, stride_width, dilation_width, padding_mode)[None, :, None, :]
    is_outside = (rows == OUTSIDE) | (columns == OUTSIDE)
    index = np.where(is_outside, height * width, rows * width + columns)  # (Ho, Wo, Kh, Kw)

    output_size = (rows.shape[0], columns.shape[1])
    neighbours = index.reshape(output_size[0] * output_size[1], kernel_height * kernel_width)
    centre_rows, centre_columns = np.arange(0, height, stride_height), np.arange(0, width, stride_width)
    centres = (centre_rows[:, None] * width + centre_columns).ravel().astype(np.int64)
    return Footprint(neighbours, centres, output_size)


def _positions(size: int, taps: int, stride: int, dilation: int, padding_mode: str) -> NDArray[np.int64]:
    """Return the (outputs, taps) positions along one axis; those outside the axis are reflected, moved or OUTSIDE."""
    outputs = -(-size // stride)
    centre = np.arange(outputs, dtype=np.int64)[:, None] * stride
    offset = (np.arange(taps, dtype=np.int64)[None, :] - (taps - 1) // 2) * dilation
    position = centre + offset
    if padding_mode == "clamp":
        phase = centre % dilation
        length = (size - phase + dilation - 1) // dilation  # of the axis of this phase
        first = np.clip(centre // dilation - taps // 2, 0, length - taps)
        return phase + (first + np.arange(taps, dtype=np.int64)) * dilation
    if padding_mode == "zeros":
        return np.where((position < 0) | (position >= size), OUTSIDE, position)
    if size == 1:
        return np.zeros_like(position)  # the only pixel repeats
    period = 2 * (size - 1)
    position = position % period
    return np.where(position < size, position, period - position)


def _check_pair(name: str, value: Any, odd: bool = False) -> tuple[int, int]:
    """Return value as (height, width), or say what is wrong with it."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(isinstance(side, Integral) and not isinstance(side, bool) for side in pair):
        raise TypeError(f"{name} must be an int or a pair of ints, got {value!r}")
    if min(pair) < 1:
        raise ValueError(f"{name} must be at least 1, got {value!r}")
    if odd and any(side % 2 == 0 for side in pair):
        raise ValueError(f"{name} must be odd, so that a footprint has a centre, got {value!r}")
    return int(pair[0]), int(pair[1])
