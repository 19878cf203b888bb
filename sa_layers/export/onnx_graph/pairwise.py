"""Pairwise attention in ONNX."""

from __future__ import annotations

from collections.abc import Sequence

from ..band.operators import band_of
from .aggregation import aggregate
from .maps import for_each_image, pixels_of, to_map
from .nodes import Value, integers, op, reshape, unsqueeze
from .products import products_in_windows

FEW_CHANNELS = 6  # up to this width Gather repeats a query for its taps, which is faster than broadcasting


def pairwise_attention(
    maps: Value,
    outside: Sequence[Value],
    tables: Sequence[Value],
    position: Sequence[Value],
    shift: Sequence[Value],
    weights: Sequence[Value],
    biases: Sequence[Value],
    relation: str,
    sizes: Sequence[int],
    channels: Sequence[int],
    in_block: bool,
) -> Value:
    """Translate :func:`sa_layers.export.band.operators.pairwise_attention`."""
    band, taps = band_of(sizes), band_of(sizes).footprint.taps
    query, key, value = pixels_of(maps, (channels[0], channels[0], channels[1]), outside)
    positions = [for_each_image(unsqueeze(op.MatMul(tables[3], matrix), 0), maps) for matrix in position]
    width = channels[0]
    if relation == "difference":
        if positions:
            query, key = op.Concat(query, positions[0], axis=2), op.Concat(key, positions[1], axis=2)
            width += position[0].shape[1]
        features = _combine("Sub", query, key, tables, taps, width)
    else:
        if relation == "hadamard":
            features = _combine("Mul", query, key, tables, taps, width)
        else:
            features, width = reshape(products_in_windows(query, key, tables, band, width), -1, 1), 1
        features = op.Add(features, shift[0])
        if positions:
            encoded = _combine("Sub", positions[0], positions[1], tables, taps, position[0].shape[1])
            features = op.Concat(features, encoded, axis=1)
            width += position[0].shape[1]
    hidden = op.Relu(features)
    for weight, bias in zip(weights, biases, strict=False):
        hidden, width = op.Relu(op.Gemm(hidden, weight, bias)), weight.shape[1]
    # transposed, so that the taps are the last dimension: a softmax along any other is many times slower
    hidden = op.Transpose(reshape(hidden, -1, band.segment * taps, width), perm=(0, 2, 1))
    logits = op.MatMul(weights[-1], hidden)  # (N * segments, Cw, segment * taps)
    softmax = op.Softmax(reshape(logits, -1, taps), axis=-1)
    output = to_map(aggregate(value, softmax, tables[2], band, channels, grouped=in_block), maps, band, channels[1])
    return op.Transpose(op.Relu(output) if in_block else output, perm=(0, 3, 1, 2))


def _combine(operator: str, query: Value, key: Value, tables: Sequence[Value], taps: int, width: int) -> Value:
    """Combine every output pixel with its taps: (N, pixels, D) twice -> (N * output pixels * taps, D)."""
    centres, neighbours = tables[0], op.Gather(key, tables[1], axis=1)
    if width <= FEW_CHANNELS:
        repeated = reshape(op.Expand(unsqueeze(centres, 1), integers(1, taps)), -1)
        combined = getattr(op, operator)(op.Gather(query, repeated, axis=1), neighbours)
    else:
        centre = reshape(op.Gather(query, centres, axis=1), -1, 1, width)
        combined = getattr(op, operator)(centre, reshape(neighbours, -1, taps, width))
    return reshape(combined, -1, width)
