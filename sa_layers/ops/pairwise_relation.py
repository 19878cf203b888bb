"""Pairwise relations δ(x_i, x_j): a pixel and each neighbour in its footprint compared one pair at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import autocast, check_alike, check_map, check_shape
from .footprint import Footprint, IntOrPair

PAIRWISE_RELATIONS = ("subtraction", "summation", "hadamard", "dot", "concatenation")


def pairwise_relation(
    query: Tensor,
    key: Tensor,
    kernel_size: IntOrPair,
    relation: str = "subtraction",
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
) -> Tensor:
    r"""Compares every pixel's query with the keys of its footprint.

    With :math:`\varphi_i` the query and :math:`\psi_j` the key, the relations of the paper's section 3.1 are

    - 'subtraction': :math:`\varphi_i - \psi_j`, D = C
    - 'summation': :math:`\varphi_i + \psi_j`, D = C
    - 'hadamard': :math:`\varphi_i \odot \psi_j`, D = C
    - 'dot': :math:`\varphi_i^\top \psi_j`, D = 1
    - 'concatenation': :math:`[\varphi_i, \psi_j]`, D = 2C

    Args:
        query: φ, (N, C, H, W); float64, float32, float16 or bfloat16, of any strides.
        key: ψ, the shape, dtype and device of ``query``. Under 'zeros' padding a key beyond the border is 0.
        kernel_size: Taps of the footprint, odd; an integer or (height, width).
        relation: One of the five above.
        stride: Pixels between footprints. Defaults to 1.
        dilation: Pixels between taps. Defaults to 1.
        padding_mode: 'reflect' (default) or 'zeros' beyond the border.

    Returns:
        (N, D, Kh * Kw, Ho * Wo).

    Raises:
        TypeError: A dtype is not allowed, or the two differ outside autocast.
        ValueError: A shape, size, mode or relation does not fit; the message names it.

    Example:
        >>> features = torch.arange(9.0).view(1, 1, 3, 3)
        >>> pairwise_relation(features, features, kernel_size=3)[0, 0, :, 4]
        tensor([ 4.,  3.,  2.,  1.,  0., -1., -2., -3., -4.])
    """
    footprint = Footprint.parse(kernel_size, stride, dilation, padding_mode)
    if relation not in PAIRWISE_RELATIONS:
        raise ValueError(f"relation must be one of {', '.join(PAIRWISE_RELATIONS)}, got {relation!r}")
    query, key = autocast(query, key)
    check_map(query, "query")
    check_shape(key, "key", tuple(query.shape), f"query {tuple(query.shape)}")
    check_alike(query, "query", key, "key")
    return pairwise_relation_in_torch(query, key, footprint, relation)


def pairwise_relation_in_torch(query: Tensor, key: Tensor, footprint: Footprint, relation: str) -> Tensor:
    """The relation as one broadcast over the unfolded keys."""
    centre = footprint.centre(query).flatten(2).unsqueeze(2)
    neighbours = footprint.unfold(key)
    if relation == "subtraction":
        return centre - neighbours
    if relation == "summation":
        return centre + neighbours
    if relation == "hadamard":
        return centre * neighbours
    if relation == "dot":
        accumulate = torch.promote_types(query.dtype, torch.float32)
        return (centre * neighbours).sum(1, keepdim=True, dtype=accumulate).to(query.dtype)
    return torch.cat([centre.expand_as(neighbours), neighbours], dim=1)
