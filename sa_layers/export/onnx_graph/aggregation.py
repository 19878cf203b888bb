"""The aggregation as a product of bands of weights with windows of the value."""

from __future__ import annotations

from collections.abc import Sequence

from ..band.geometry import Band
from .nodes import Value, integers, multiples, op, part, reshape, scalar


def skew(rows: Value, band: Band) -> Value:
    """The bands of segments: (-1, taps) weights of successive output pixels -> (-1, segment * window).

    A band has as many columns as a window, and a row starts ``shift`` columns after the row above it. So rows that are
    padded to ``window + shift`` and put one behind another are the band, row by row.
    """
    length = band.window + band.shift
    padded = op.Pad(rows, integers(0, 0, 0, length - band.footprint.taps))
    return part(reshape(padded, -1, band.segment * length), 0, band.segment * band.window, axis=1)


def unskew(bands: Value, band: Band) -> Value:
    """The inverse of :func:`skew`: (-1, segment, window), of which only the band is read -> (-1, taps)."""
    flat = reshape(bands, -1, band.segment * band.window)
    padded = op.Pad(flat, integers(0, 0, 0, band.segment * band.shift))
    return part(reshape(padded, -1, band.window + band.shift), 0, band.footprint.taps, axis=1)


def aggregate(value: Value, weights: Value, window: Value, band: Band, channels: Sequence[int], grouped: bool) -> Value:
    """Multiply bands of weights with windows.

    Args:
        value: (N, pixels, C), with the channels of a weight side by side.
        weights: (N * segments * Cw * segment, taps).
        window: The pixels of the windows of all segments.
        band: The band of the footprint.
        channels: Of query and key, value, and weights.
        grouped: Whether the channels of the result are those of ``value``, or in their own order.

    Returns:
        (N * segments, segment, Cw, C / Cw), or with the last two exchanged.
    """
    _, value_channels, weight_channels = channels
    share = value_channels // weight_channels
    rows = op.Mul(reshape(window, -1, 1, band.window), scalar(weight_channels))
    rows = reshape(op.Add(rows, multiples(weight_channels, 1, 1, -1, 1)), -1)
    windows = op.Gather(reshape(value, 0, -1, share), rows, axis=1)
    bands = reshape(skew(weights, band), -1, weight_channels, band.segment, band.window)
    product = op.MatMul(bands, reshape(windows, -1, weight_channels, band.window, share))
    return op.Transpose(product, perm=(0, 2, 1, 3) if grouped else (0, 2, 3, 1))
