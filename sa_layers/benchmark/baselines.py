"""The same operators as people write them, for comparison.

Each takes (value, weight, footprint) as :func:`sa_layers.ops.aggregation` does, or (query, key, footprint), and is
differentiable. Channels share a weight as there: channel c uses weight c % Cw, a broadcast over C = (C / Cw) * Cw.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops import Footprint


def unfold_multiply_sum(value: Tensor, weight: Tensor, footprint: Footprint) -> Tensor:
    """What the paper's equation becomes first: all neighbours in memory, times the weights, summed."""
    neighbours = footprint.unfold(value).unflatten(1, (-1, weight.shape[1]))  # (N, C / Cw, Cw, K*K, Ho*Wo)
    output = (neighbours * weight.unsqueeze(1)).sum(3)
    return output.flatten(1, 2).unflatten(-1, footprint.output_size(*value.shape[2:]))


def unfold_einsum(value: Tensor, weight: Tensor, footprint: Footprint) -> Tensor:
    """The same by einsum, which does not keep the product."""
    neighbours = footprint.unfold(value).unflatten(1, (-1, weight.shape[1]))
    output = torch.einsum("nsctp,nctp->nscp", neighbours, weight)
    return output.flatten(1, 2).unflatten(-1, footprint.output_size(*value.shape[2:]))


def shift_loop(value: Tensor, weight: Tensor, footprint: Footprint) -> Tensor:
    """Tap after tap, the shifted map times its weights added in place: the best that plain torch does on a CPU."""
    output_size = footprint.output_size(*value.shape[2:])
    shared = value.unflatten(1, (-1, weight.shape[1]))
    weights = weight.unflatten(-1, output_size).unsqueeze(1)
    output = shared.new_zeros(*shared.shape[:3], *output_size)
    for tap, neighbour in enumerate(footprint.neighbours(shared)):
        output.addcmul_(neighbour, weights[:, :, :, tap])
    return output.flatten(1, 2)


def unfold_subtract(query: Tensor, key: Tensor, footprint: Footprint) -> Tensor:
    """The subtraction relation with all neighbours in memory."""
    return footprint.centre(query).flatten(2).unsqueeze(2) - footprint.unfold(key)


def shift_subtract(query: Tensor, key: Tensor, footprint: Footprint) -> Tensor:
    """The subtraction relation tap after tap."""
    centre = footprint.centre(query)
    return torch.stack([centre - neighbour for neighbour in footprint.neighbours(key)], 2).flatten(3)
