"""The operators written in plain torch, as baselines.

Each baseline is differentiable and takes (value, weight, footprint), as :func:`sa_layers.ops.aggregation` does, or
(query, key, footprint). Channel c uses weight channel c % Cw, so the channels are viewed as (C / Cw, Cw) and the
weights are broadcast over the first of these dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops import Footprint


def unfold_multiply_sum(value: Tensor, weight: Tensor, footprint: Footprint) -> Tensor:
    """Aggregation as in the paper's equation: unfold all neighbours, multiply by the weights and sum."""
    neighbours = footprint.unfold(value).unflatten(1, (-1, weight.shape[1]))  # (N, C / Cw, Cw, K*K, Ho*Wo)
    output = (neighbours * weight.unsqueeze(1)).sum(3)
    return output.flatten(1, 2).unflatten(-1, footprint.output_size(*value.shape[2:]))


def unfold_einsum(value: Tensor, weight: Tensor, footprint: Footprint) -> Tensor:
    """Aggregation by unfold and einsum, which does not store the products."""
    neighbours = footprint.unfold(value).unflatten(1, (-1, weight.shape[1]))
    output = torch.einsum("nsctp,nctp->nscp", neighbours, weight)
    return output.flatten(1, 2).unflatten(-1, footprint.output_size(*value.shape[2:]))


def shift_loop(value: Tensor, weight: Tensor, footprint: Footprint) -> Tensor:
    """Aggregation by a loop over taps that accumulates shifted maps in place, the fastest plain torch on a CPU."""
    output_size = footprint.output_size(*value.shape[2:])
    shared = value.unflatten(1, (-1, weight.shape[1]))
    weights = weight.unflatten(-1, output_size).unsqueeze(1)
    output = shared.new_zeros(*shared.shape[:3], *output_size)
    for tap, neighbour in enumerate(footprint.neighbours(shared)):
        output.addcmul_(neighbour, weights[:, :, :, tap])
    return output.flatten(1, 2)


def unfold_subtract(query: Tensor, key: Tensor, footprint: Footprint) -> Tensor:
    """Subtraction relation that unfolds all neighbours."""
    return footprint.centre(query).flatten(2).unsqueeze(2) - footprint.unfold(key)


def shift_subtract(query: Tensor, key: Tensor, footprint: Footprint) -> Tensor:
    """Subtraction relation by a loop over taps."""
    centre = footprint.centre(query)
    return torch.stack([centre - neighbour for neighbour in footprint.neighbours(key)], 2).flatten(3)
