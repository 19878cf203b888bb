"""Patchwise relations δ(x_R(i)): one vector for a whole footprint."""

from __future__ import annotations

import torch
from torch import Tensor

from .backend import decide
from .checks import autocast, check_alike, check_map, check_shape, check_tensors
from .footprint import Footprint, IntOrPair
from .pairwise_relation import pairwise_relation
from .reference_backend import compute_by_reference

PATCHWISE_RELATIONS = ("concatenation", "star", "clique")


def patchwise_relation(
    query: Tensor,
    key: Tensor,
    kernel_size: IntOrPair,
    relation: str = "concatenation",
    stride: IntOrPair = 1,
    dilation: IntOrPair = 1,
    padding_mode: str = "reflect",
) -> Tensor:
    r"""Describe every footprint by one vector.

    With :math:`\varphi` the query and :math:`\psi` the key, the relations of the paper's section 3.2 are

    - 'concatenation': :math:`[\varphi_i, [\psi_j]_{j \in R(i)}]`, D = C + C * K*K; keys are ordered by
      channel, then by tap
    - 'star': :math:`[\varphi_i^\top \psi_j]_{j \in R(i)}`, D = K*K
    - 'clique': :math:`[\varphi_j^\top \psi_k]_{j, k \in R(i)}`, D = K*K * K*K; k varies fastest

    Args:
        query: φ, (N, C, H, W); float64, float32, float16 or bfloat16, of any strides.
        key: ψ, the shape, dtype and device of ``query``. Under 'zeros' padding, pixels beyond the border are 0.
        kernel_size: Taps of the footprint, odd; an integer or (height, width).
        relation: One of the three above.
        stride: Pixels between footprints. Defaults to 1.
        dilation: Pixels between taps. Defaults to 1.
        padding_mode: 'reflect' (default) or 'zeros' beyond the border.

    Returns:
        (N, D, 1, Ho * Wo).

    Raises:
        TypeError: A dtype is not allowed, or the two differ outside autocast.
        ValueError: A shape, size, mode or relation does not fit; the message names it.

    Example:
        >>> features = torch.ones(1, 4, 6, 6)
        >>> patchwise_relation(features, features, kernel_size=3, relation="clique").shape
        torch.Size([1, 81, 1, 36])
    """
    footprint = Footprint.parse(kernel_size, stride, dilation, padding_mode)
    if relation not in PATCHWISE_RELATIONS:
        raise ValueError(f"relation must be one of {', '.join(PATCHWISE_RELATIONS)}, got {relation!r}")
    if relation == "star":
        return pairwise_relation(query, key, kernel_size, "dot", stride, dilation, padding_mode).transpose(1, 2)
    check_tensors(query=query, key=key)
    query, key = autocast(query, key)
    check_map(query, "query")
    check_shape(key, "key", tuple(query.shape), f"query {tuple(query.shape)}")
    check_alike(query, "query", key, "key")
    if decide(query.device) == "reference":  # it has no native kernel, so there is no fallback to warn of
        return compute_by_reference("patchwise_relation", query, key, footprint, relation=relation)
    keys = footprint.unfold(key)
    if relation == "concatenation":
        return torch.cat([footprint.centre(query).flatten(2).unsqueeze(2), keys.flatten(1, 2).unsqueeze(2)], dim=1)
    queries = footprint.unfold(query)  # a (C, K*K) matrix for each pixel, as for the keys
    return (queries.permute(0, 3, 2, 1) @ keys.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2).unsqueeze(2)
