"""Maps as rows of pixels, and rows of output pixels as maps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from ..band.geometry import Band
from .nodes import Value, integers, op, part, reshape, unsqueeze


def pixels_of(maps: Value, channels: Sequence[int], outside: Sequence[Value]) -> list[Value]:
    """The parts of a map with ``channels`` channels each, as (N, pixels, channels).

    Args:
        maps: (N, C, H, W).
        channels: The channels of each part.
        outside: The pixel beyond the border, (C,), which is appended to the pixels, if there is one.
    """
    parts = []
    for start, end in pairwise(accumulate(channels, initial=0)):
        pixels = op.Transpose(reshape(part(maps, start, end, axis=1), 0, end - start, -1), perm=(0, 2, 1))
        for beyond in outside:
            pixel = unsqueeze(part(beyond, start, end, axis=0), 0, 1)
            pixels = op.Concat(pixels, for_each_image(pixel, maps), axis=1)
        parts.append(pixels)
    return parts


def for_each_image(value: Value, maps: Value) -> Value:
    """(1, ...) -> (N, ...)."""
    return op.Expand(value, op.Concat(op.Shape(maps, start=0, end=1), integers(1, 1), axis=0))


def to_map(pixels: Value, maps: Value, band: Band, channels: int) -> Value:
    """Arrange the output pixels of all segments as a channels-last map: (N, Ho, Wo, C)."""
    batch, height, width = (op.Shape(maps, start=axis, end=axis + 1) for axis in (0, 2, 3))
    rows, columns = (_output(size, stride) for size, stride in zip((height, width), band.footprint.stride, strict=True))
    classes = [integers(band.classes)] if band.classes > 1 else []
    grid = op.Reshape(pixels, op.Concat(batch, rows, *classes, integers(-1, channels), axis=0))
    if classes:
        grid = op.Transpose(grid, perm=(0, 1, 3, 2, 4))
        grid = op.Reshape(grid, op.Concat(batch, rows, integers(-1, channels), axis=0))
    return op.Slice(grid, integers(0), columns, integers(2))


def _output(size: Value, stride: int) -> Value:
    return size if stride == 1 else op.Div(op.Add(size, integers(stride - 1)), integers(stride))
