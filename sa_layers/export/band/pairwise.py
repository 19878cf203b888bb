"""Pairwise attention with its norms folded, as the operator takes it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...fused.position import position_matrices
from ...layers import PairwiseSelfAttention
from ...layers.position import PositionEncoding
from .folding import Affine, Layer, by_weight, fold_mapping, transforms_of


class FoldedPairwise(NamedTuple):
    r"""The operands of pairwise attention.

    The first norm of the mapping is folded into query and key, and that of the output into value, since weights sum to
    1. Five relations become three: the ReLU of 'difference' :math:`q_i - k_j`, 'hadamard' :math:`q_i \odot k_j + t` or
    'dot' :math:`q_i^\top k_j + t`. A sum is the difference to the negative key, and a concatenation the difference of
    :math:`[q_i, 0]` and :math:`[0, -k_j]`. A position is always a difference.
    """

    transform: Layer
    """Query, key and value as one layer of the input; the value's channels in the order of :func:`.by_weight`."""
    outside: Tensor
    """Its output beyond the border, under 'zeros' padding."""
    position: list[Tensor]
    """Matrices (3, P) from coordinates to channels that are added to query and key; empty without a position."""
    shift: list[Tensor]
    """t, if the relation is a product."""
    weights: list[Tensor]
    """Of the mapping: (in, out) of each hidden layer; (Cw, in) of the last, whose bias the softmax cancels."""
    biases: list[Tensor]
    relation: str
    channels: list[int]
    """Of query and key, value, and weights."""


def fold_pairwise(layer: PairwiseSelfAttention, output: Affine | None = None) -> FoldedPairwise:
    """Fold a layer and a norm that follows it."""
    query, key, value = transforms_of(layer)
    first, (*hidden, last) = fold_mapping(layer.mapping)
    encoding = layer.position
    width = len(first.scale) - (encoding.channels if isinstance(encoding, PositionEncoding) else 0)
    (scale, position_scale), (shift, position_shift) = (tensor.tensor_split([width]) for tensor in first)
    zeros = torch.zeros_like
    key_outside, shifts, relation = zeros(key.bias), [], "difference"
    if layer.relation in ("subtraction", "summation"):
        sign = 1 if layer.relation == "subtraction" else -1
        query, key = query.then(Affine(scale, shift)), key.then(Affine(sign * scale, zeros(scale)))
    elif layer.relation == "concatenation":
        channels = layer.relation_channels
        query_norm, key_norm = (Affine(scale[part], shift[part]) for part in (slice(channels), slice(channels, None)))
        query, key = query.then(query_norm), key.then(Affine(-key_norm.scale, -key_norm.shift))
        nothing = Layer(zeros(query.weight), zeros(query.bias))
        query, key = query.joined(nothing), nothing.joined(key)
        key_outside = torch.cat([nothing.bias, -key_norm.shift])
    else:
        relation, shifts = layer.relation, [shift]
        query = query.then(Affine(scale.expand(len(query.bias)), zeros(query.bias)))
    position = []
    if isinstance(encoding, PositionEncoding):
        linear = Layer.of(encoding.transform)
        matrix = torch.cat([linear.weight, linear.bias.unsqueeze(1)], dim=1)
        here, there = position_matrices(matrix, encoding.position)
        here, there = here * position_scale.unsqueeze(1), -there * position_scale.unsqueeze(1)
        here[:, 2] += position_shift
        position = [here.T, there.T]
    value_outside = zeros(value.bias)
    if output is not None:
        value, value_outside = value.then(output), output.shift
    order = by_weight(len(value.bias), layer.weight_channels)
    transform = query.joined(key, Layer(value.weight[order], value.bias[order]))
    return FoldedPairwise(
        transform,
        torch.cat([zeros(query.bias), key_outside, value_outside[order]]),
        position,
        shifts,
        [*(part.weight.T for part in hidden), last.weight],
        [part.bias for part in hidden],
        relation,
        [len(query.bias), len(value.bias), layer.weight_channels],
    )
