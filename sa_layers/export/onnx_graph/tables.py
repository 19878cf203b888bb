"""Tables of pixels and coordinates, computed from the size of a map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ..band.operators import band_of
from .nodes import Value, integers, multiples, number, op, reshape, scalar, steps, unsqueeze


def tables(like: Value, height: Value, width: Value, sizes: Sequence[int], zeros: bool) -> tuple[Value, Value, Value]:
    """Translate :func:`sa_layers.export.band.operators.tables`."""
    band = band_of(sizes)
    (kernel_height, kernel_width), stride, dilation, _ = band.footprint
    top, left = band.footprint.padding
    height, width = number(height), number(width)
    rows, out_width = steps(_ceil_div(height, stride[0]), stride[0]), _ceil_div(width, stride[1])
    segments = _ceil_div(_ceil_div(out_width, band.classes), band.segment)
    first = op.Add(  # the centre of the first pixel of every segment, class by class
        multiples(band.classes, stride[1], -1, 1), unsqueeze(steps(segments, band.segment * band.step * dilation[1]), 0)
    )
    first = reshape(first, -1, 1)
    centres = op.Add(first, multiples(band.segment, band.step * dilation[1]))  # (segments, pixels)
    window = op.Add(first, op.Sub(multiples(band.columns, dilation[1]), scalar(left)))
    taps = op.Add(unsqueeze(centres, 2), op.Sub(multiples(kernel_width, dilation[1]), scalar(left)))
    tap_rows = op.Add(unsqueeze(rows, 1), op.Sub(multiples(kernel_height, dilation[0]), scalar(top)))  # (Ho, Kh)

    def pixels(columns: Value, dimensions: int) -> Value:
        """The pixels of (Ho, Kh) rows and (..., columns) columns, (Ho, ..., columns, Kh), as a vector."""
        between = unsqueeze(tap_rows, *range(1, dimensions + 1))
        return reshape(_pixels(between, unsqueeze(columns, 0, dimensions + 1), height, width, zeros), -1)

    last = op.Sub(width, scalar(1))  # pixels of a segment beyond the map are computed and dropped
    centre = op.Add(op.Mul(unsqueeze(rows, 1, 2), width), unsqueeze(op.Min(centres, last), 0))
    return reshape(centre, -1), pixels(taps, 3), pixels(window, 2)


def coordinates(like: Value, height: Value, width: Value, size: Sequence[int], zeros: bool) -> Value:
    """Translate :func:`sa_layers.export.band.operators.coordinates`."""
    height, width = number(height), number(width)
    rows, columns = tuple(size) or (None, None)
    shape = op.Concat(unsqueeze(height, 0), unsqueeze(width, 0), axis=0)
    horizontal = op.Expand(unsqueeze(_axis(width, columns, like), 0), shape)
    vertical = op.Expand(unsqueeze(_axis(height, rows, like), 1), shape)
    one = op.Expand(_float(1, like), shape)
    grid = reshape(op.Concat(*(unsqueeze(part, 2) for part in (horizontal, vertical, one)), axis=2), -1, 3)
    return op.Pad(grid, integers(0, 0, 1, 0)) if zeros else grid


def _pixels(rows: Value, columns: Value, height: Value, width: Value, zeros: bool) -> Value:
    """The numbers of pixels in rows and columns that may be beyond the border."""
    if not zeros:
        return op.Add(op.Mul(_bounce(rows, height), width), _bounce(columns, width))
    inside = op.And(_is_inside(rows, height), _is_inside(columns, width))
    return op.Where(inside, op.Add(op.Mul(rows, width), columns), op.Mul(height, width))


def _bounce(positions: Value, size: Value) -> Value:
    """Positions on an axis, reflected at its ends as often as needed."""
    period = op.Max(op.Mul(op.Sub(size, scalar(1)), scalar(2)), scalar(1))
    remainder = op.Mod(positions, period)
    return op.Min(remainder, op.Sub(period, remainder))


def _is_inside(positions: Value, size: Value) -> Value:
    return op.And(op.GreaterOrEqual(positions, scalar(0)), op.Less(positions, size))


def _axis(length: Value, size: int | None, like: Value) -> Value:
    """The coordinates along an axis, as :func:`sa_layers.ops.coordinates.coordinates` computes them."""
    numbers = op.CastLike(steps(length), like)
    last = op.CastLike(op.Sub(length, scalar(1)), like)
    if size is not None:
        return op.Mul(op.Sub(numbers, op.Div(last, _float(2, like))), _float(2 / (size - 1), like))
    extent = op.Max(last, _float(1, like))
    return op.Sub(op.Div(op.Mul(numbers, _float(2, like)), extent), _float(1, like))


def _float(value: float, like: Value) -> Value:
    return op.CastLike(op.Constant(value=ir.tensor(np.array(value, dtype=np.float32))), like)


def _ceil_div(value: Value, divisor: int) -> Value:
    return value if divisor == 1 else op.Div(op.Add(value, scalar(divisor - 1)), scalar(divisor))
