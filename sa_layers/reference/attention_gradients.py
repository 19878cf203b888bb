"""What the backward passes of both attentions return."""

from __future__ import annotations

from typing import NamedTuple

from sa_layers.reference.arrays import FloatArray
from sa_layers.reference.mapping import MappingLayer, Norm
from sa_layers.reference.position import PairPosition


class AttentionGradients(NamedTuple):
    """The gradients of an attention, each of the type, shape and dtype of the argument of this name.

    In `mapping`, `position` and `epilogue`, a gradient takes the place of each array. What is no array stays as it is:
    None, the eps of a `BatchNorm`, the size of a `PairPosition`.

    Args:
        query: (N, Cr, H, W).
        key: (N, Cr, H, W).
        value: (N, C, H, W).
        mapping: One layer for each of the mapping.
        position: The gradients of both matrices, or None without a position; patchwise attention has none.
        epilogue: The gradients of both vectors, or None without an epilogue.
    """

    query: FloatArray
    key: FloatArray
    value: FloatArray
    mapping: list[MappingLayer]
    position: PairPosition | None = None
    epilogue: Norm | None = None
