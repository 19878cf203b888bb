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
    first, (*hidden, last) = fold_mapping(layer.mapping)
    encoding = layer.position
    width = len(first.scale) - (encoding.channels if isinstance(encoding, PositionEncoding) else 0)
    of_relation, of_position = (Affine(*parts) for parts in zip(*(t.tensor_split([width]) for t in first), strict=True))
    related = _fold_relation(layer, of_relation)
    value = transforms_of(layer)[2]
    outside = torch.zeros_like(value.bias)
    if output is not None:
        value, outside = value.then(output), output.shift
    channels = [len(related.query.bias), len(value.bias), len(last.bias)]
    order = by_weight(channels)
    return FoldedPairwise(
        related.query.joined(related.key, Layer(value.weight[order], value.bias[order])),
        torch.cat([torch.zeros_like(related.query.bias), related.outside, outside[order]]),
        _fold_position(encoding, of_position) if isinstance(encoding, PositionEncoding) else [],
        related.shift,
        [*(part.weight.T for part in hidden), last.weight],
        [part.bias for part in hidden],
        related.relation,
        channels,
    )


class _Related(NamedTuple):
    """Query and key with the norm of a relation folded in, what the key is beyond the border, and t of a product."""

    query: Layer
    key: Layer
    outside: Tensor
    relation: str
    shift: list[Tensor]


def _fold_relation(layer: PairwiseSelfAttention, norm: Affine) -> _Related:
    """Reduce a relation and the norm that follows it to one of three."""
    (query, key, _), (scale, shift) = transforms_of(layer), norm
    nothing = torch.zeros_like(query.bias)
    if layer.relation in ("subtraction", "summation"):
        opposite = Affine(scale if layer.relation == "subtraction" else -scale, nothing)
        return _Related(query.then(norm), key.then(opposite), nothing, "difference", [])
    if layer.relation == "concatenation":
        (query_scale, key_scale), (query_shift, key_shift) = scale.chunk(2), shift.chunk(2)
        query, key = query.then(Affine(query_scale, query_shift)), key.then(Affine(-key_scale, -key_shift))
        empty = Layer(torch.zeros_like(query.weight), nothing)
        outside = torch.cat([nothing, -key_shift])
        return _Related(query.joined(empty), empty.joined(key), outside, "difference", [])
    if layer.relation not in ("hadamard", "dot"):
        raise NotImplementedError(f"there is no band graph for the relation {layer.relation!r}")
    scaled = query.then(Affine(scale.expand(len(nothing)), nothing))
    return _Related(scaled, key, nothing, layer.relation, [shift])


def _fold_position(encoding: PositionEncoding, norm: Affine) -> list[Tensor]:
    """The matrices of a pixel and, negated, of its neighbour, with a norm folded in."""
    linear = Layer.of(encoding.transform)
    matrix = torch.cat([linear.weight, linear.bias.unsqueeze(1)], dim=1)
    here, there = (each * norm.scale.unsqueeze(1) for each in position_matrices(matrix, encoding.position))
    return [(here + torch.stack([*(torch.zeros_like(norm.shift),) * 2, norm.shift], dim=1)).T, -there.T]
