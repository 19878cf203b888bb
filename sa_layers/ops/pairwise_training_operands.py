"""What the passes of pairwise attention in training take and return besides maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import DTYPES
from .footprint import Footprint
from .pairwise_operands import POSITION_CHANNELS, PairPosition
from .pairwise_relation import PAIRWISE_RELATIONS, relation_width


class PairwiseGeometry(NamedTuple):
    """Which pixels a pair consists of, and its features.

    Args:
        footprint: R(i).
        relation: δ, one of those of :func:`sa_layers.ops.pairwise_relation`.
        position: Its matrices have the dtype in which the maps are accumulated. Defaults to None, for none.
    """

    footprint: Footprint
    relation: str
    position: PairPosition | None = None

    @property
    def positions(self) -> int:
        """The features of a position, P."""
        return 0 if self.position is None else len(self.position.query)

    def features(self, channels: int) -> int:
        """The features of a pair, D, for a query and a key with ``channels`` channels."""
        return relation_width(self.relation, channels) + self.positions


class PairwiseMapping(NamedTuple):
    """The mapping with its norms as scales and shifts. Each tensor is float32 or float64.

    Args:
        scale1: (D,).
        shift1: (D,).
        mean1: The mean of the first norm, (D,), about which sums over features are taken.
        center: The mean of a where it is known, otherwise zeros, (D,). Sums of products are taken about it.
        weight1: (R', D).
        scale2: (R',).
        shift2: (R',).
        weight2: (Cw, R').
    """

    scale1: Tensor
    shift1: Tensor
    mean1: Tensor
    center: Tensor
    weight1: Tensor
    scale2: Tensor
    shift2: Tensor
    weight2: Tensor

    def to(self, dtype: torch.dtype) -> PairwiseMapping:
        """Cast every tensor."""
        return PairwiseMapping(*(tensor.to(dtype) for tensor in self))


class PairwiseSums(NamedTuple):
    """Sums over all pairs of the backward pass, in float64. A gradient dx is that of the loss by x.

    Args:
        hidden: The sum of dy 1[y > 0], (R',).
        products: The sum of dy 1[y > 0] (a - center)^T, (R', D).
        weight2: The sum of dl y^T, (Cw, R').
        features: The sums of g and of g * (r - mean1), (2, D), with g the gradient of a times 1[a > 0].
        position: The gradients of the matrices of the query's and of the key's position, (2, P, 3), or None. If the two
            matrices are opposite, as those of relative positions, only the difference of the two gradients is defined:
            the gradient of one matrix that both depend on.
    """

    hidden: Tensor
    products: Tensor
    weight2: Tensor
    features: Tensor
    position: Tensor | None


def pairwise_why_not(
    dtype: torch.dtype,
    channels: int,
    value_channels: int,
    widths: Sequence[int],
    positions: int,
    geometry: PairwiseGeometry,
) -> str | None:
    """One sentence on why these passes cannot train an attention, or None.

    Args:
        dtype: That of the maps.
        channels: Cr.
        value_channels: C.
        widths: D, then the output channels of each layer of the mapping.
        positions: The features of a position, P.
        geometry: The pairs.

    Example:
        >>> pairwise_why_not(torch.float32, 4, 16, [6, 2], 2, PairwiseGeometry(Footprint.parse(7), "subtraction"))
        'the mapping has 1 layer, not 2'
    """
    if dtype not in DTYPES:
        return f"the maps are {dtype}"
    if len(widths) != 3:
        return f"the mapping has {len(widths) - 1} layer{'s' * (len(widths) != 2)}, not 2"
    if geometry.relation not in PAIRWISE_RELATIONS:
        return f"the relation is {geometry.relation!r}"
    if positions > POSITION_CHANNELS:
        return f"a position has {positions} features, more than {POSITION_CHANNELS}"
    if widths[0] != relation_width(geometry.relation, channels) + positions:
        return f"the mapping has {widths[0]} inputs, which are not the features of a pair"
    if value_channels % widths[-1]:
        return f"the {widths[-1]} channels of the weights do not divide the {value_channels} of the value"
    return None
