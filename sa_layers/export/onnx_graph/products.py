"""Dot products of pixels and their taps."""

from __future__ import annotations

from collections.abc import Sequence

from ..band.geometry import Band
from .aggregation import unskew
from .nodes import Value, op, reshape


def products_in_windows(query: Value, key: Value, tables: Sequence[Value], band: Band, width: int) -> Value:
    """The products of output pixels with their taps: (N, pixels, D) twice -> (N * output pixels, taps).

    A segment is multiplied with its window, and only the band of the product is kept.
    """
    centres = reshape(op.Gather(query, tables[0], axis=1), -1, band.segment, width)
    window = reshape(op.Gather(key, tables[2], axis=1), -1, band.window, width)
    return unskew(op.MatMul(centres, op.Transpose(window, perm=(0, 2, 1))), band)


def products_of_taps(query: Value, key: Value, tables: Sequence[Value], taps: int, width: int) -> Value:
    """The products of all taps with all taps: (N, pixels, D) twice -> (N * output pixels, taps * taps)."""
    first, second = (reshape(op.Gather(each, tables[1], axis=1), -1, taps, width) for each in (query, key))
    return reshape(op.MatMul(first, op.Transpose(second, perm=(0, 2, 1))), -1, taps * taps)
