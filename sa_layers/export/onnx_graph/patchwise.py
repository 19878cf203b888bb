"""Patchwise attention in ONNX."""

from __future__ import annotations

from collections.abc import Sequence

from ..band.operators import band_of
from .aggregation import aggregate
from .maps import pixels_of, to_map
from .nodes import Value, op, reshape, scalar, unsqueeze
from .products import products_in_windows, products_of_taps


def patchwise_attention(
    maps: Value,
    outside: Sequence[Value],
    tables: Sequence[Value],
    scale: Sequence[Value],
    shift: Value,
    weights: Sequence[Value],
    biases: Sequence[Value],
    output_shift: Sequence[Value],
    relation: str,
    sizes: Sequence[int],
    channels: Sequence[int],
    in_block: bool,
) -> Value:
    """Translate :func:`sa_layers.export.band.operators.patchwise_attention`."""
    band, (width, value_channels, weight_channels) = band_of(sizes), channels
    taps = band.footprint.taps
    if relation == "concatenation":
        both, value = pixels_of(maps, (2 * width, value_channels), outside)
        features = _footprints(both, tables, taps, width)
    else:
        query, key, value = pixels_of(maps, (width, width, value_channels), outside)
        if relation == "star":
            features = products_in_windows(query, key, tables, band, width)
        else:
            features = products_of_taps(query, key, tables, taps, width)
    for factor in scale:
        features = op.Mul(features, factor)
    hidden = op.Relu(op.Add(features, shift))
    for weight, bias in zip(weights[:-1], biases, strict=False):
        hidden = op.Relu(op.Gemm(hidden, weight, bias))
    linear = op.Gemm(hidden, weights[-1], biases[0]) if len(weights) == 1 else op.MatMul(hidden, weights[-1])
    by_tap = op.Transpose(reshape(linear, -1, band.segment, weight_channels, taps), perm=(0, 2, 1, 3))
    aggregated = aggregate(value, reshape(by_tap, -1, taps), tables[2], band, channels, grouped=in_block)
    output = to_map(aggregated, maps, band, value_channels)
    for offset in output_shift:
        output = op.Add(output, offset)
    return op.Transpose(op.Relu(output) if in_block else output, perm=(0, 3, 1, 2))


def _footprints(both: Value, tables: Sequence[Value], taps: int, width: int) -> Value:
    """The query of every output pixel and the keys of its taps: (N, pixels, 2 D) -> (N * pixels, (1 + taps) * D)."""
    centres = op.Mul(unsqueeze(tables[0], 1), scalar(2))
    neighbours = op.Add(op.Mul(reshape(tables[1], -1, taps), scalar(2)), scalar(1))
    rows = reshape(op.Concat(centres, neighbours, axis=1), -1)
    return reshape(op.Gather(reshape(both, 0, -1, width), rows, axis=1), -1, (1 + taps) * width)
