"""The passes of patchwise attention in training, in plain torch; see :mod:`sa_layers.ops.patchwise_training`.

Maps are channels last here, (N, H, W, C), and (N, C, H, W) inside. A pass holds the features of all footprints while it
runs, and keeps none of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .footprint import Footprint, bounce


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which maps are computed: float32, or float64 for float64.

    Example:
        >>> compute_dtype(torch.bfloat16)
        torch.float32
    """
    return torch.promote_types(dtype, torch.float32)


def statistics(query: Tensor, key: Tensor, footprint: Footprint, relation: str) -> Tensor:
    """Compute :func:`patchwise_statistics`: (2, F) float64."""
    features = features_of(query.double(), key.double(), footprint, relation)
    variance, mean = torch.var_mean(features, dim=(0, 2), correction=0)
    return torch.stack([mean, variance])


def hidden(
    query: Tensor, key: Tensor, footprint: Footprint, relation: str, scale1: Tensor, shift1: Tensor, weight1: Tensor
) -> Tensor:
    """Compute :func:`patchwise_hidden`: (N, Ho, Wo, Cw)."""
    features = features_of(_computed(query), _computed(key), footprint, relation)
    activated = torch.relu(features * scale1[:, None] + shift1[:, None])
    return _to_map(weight1 @ activated, query, footprint)


def forward(
    z: Tensor, value: Tensor, footprint: Footprint, scale2: Tensor, shift2: Tensor, weight2: Tensor, bias2: Tensor
) -> Tensor:
    """Compute :func:`patchwise_forward`: (N, Ho, Wo, C)."""
    weights = _weights(torch.relu(z * scale2 + shift2), weight2, bias2, footprint)
    sums = (weights.unsqueeze(1) * _grouped(_computed(value), footprint, z.shape[3])).sum(3)
    return _to_map(sums.flatten(1, 2), value, footprint).to(value.dtype)


def backward(
    grad_output: Tensor,
    z: Tensor,
    value: Tensor,
    footprint: Footprint,
    scale2: Tensor,
    shift2: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    grad_value: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute :func:`patchwise_backward`: (N, Ho, Wo, Cw), (Cw * taps, Cw) and (Cw * taps,)."""
    weight_channels, (height, width) = z.shape[3], value.shape[1:3]
    activated = torch.relu(z * scale2 + shift2)
    weights = _weights(activated, weight2, bias2, footprint)
    gradient = _to_planes(_computed(grad_output)).flatten(2).unflatten(1, (-1, weight_channels)).unsqueeze(3)
    values = _grouped(_computed(value), footprint, weight_channels)
    grad_weights = (gradient * values).sum(1).flatten(1, 2)  # (N, Cw * taps, Ho * Wo)
    folded = _fold((gradient * weights.unsqueeze(1)).flatten(1, 2), footprint, height, width)
    grad_value.copy_(folded.permute(0, 2, 3, 1))
    grad_hidden = (weight2.t() @ grad_weights).transpose(1, 2).reshape(z.shape)
    precise = grad_weights.double()
    grad_weight2 = torch.einsum("nop,npg->og", precise, activated.flatten(1, 2).double())
    return grad_hidden, grad_weight2, precise.sum((0, 2))


def hidden_backward(
    grad_z: Tensor,
    query: Tensor,
    key: Tensor,
    footprint: Footprint,
    relation: str,
    scale1: Tensor,
    shift1: Tensor,
    mean1: Tensor,
    weight1: Tensor,
    grad_query: Tensor,
    grad_key: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`patchwise_hidden_backward`: (Cw, F) and (2, F) float64."""
    queries, keys = _computed(query), _computed(key)
    features = features_of(queries, keys, footprint, relation)
    activated = torch.relu(features * scale1[:, None] + shift1[:, None])
    gradient = grad_z.flatten(1, 2).transpose(1, 2)
    grad_features = torch.where(activated > 0, weight1.t() @ gradient, 0)
    _scatter(grad_features * scale1[:, None], queries, keys, footprint, relation, grad_query.zero_(), grad_key.zero_())
    precise = grad_features.double()
    sums = torch.stack([precise.sum((0, 2)), (precise * (features.double() - mean1[:, None])).sum((0, 2))])
    return torch.einsum("ngp,nfp->gf", gradient.double(), activated.double()), sums


def norm_backward(
    query: Tensor,
    key: Tensor,
    footprint: Footprint,
    relation: str,
    mean1: Tensor,
    factors: Tensor,
    grad_query: Tensor,
    grad_key: Tensor,
) -> None:
    """Compute :func:`patchwise_norm_backward`."""
    features = features_of(query.double(), key.double(), footprint, relation)
    gradient = -(factors[0][:, None] + factors[1][:, None] * (features - mean1[:, None]))
    queries, keys = _computed(query), _computed(key)
    _scatter(gradient.to(queries.dtype), queries, keys, footprint, relation, grad_query, grad_key)


def features_of(query: Tensor, key: Tensor, footprint: Footprint, relation: str) -> Tensor:
    """The features of all footprints, in the order of :func:`patchwise_relation`: (N, H, W, R) -> (N, F, Ho * Wo)."""
    keys = footprint.unfold(_to_planes(key))
    if relation == "clique":
        queries = footprint.unfold(_to_planes(query))
        return torch.einsum("nrip,nrjp->nijp", queries, keys).flatten(1, 2)
    centres = footprint.centre(_to_planes(query)).flatten(2)
    if relation == "star":
        return torch.einsum("nrp,nrtp->ntp", centres, keys)
    return torch.cat([centres, keys.flatten(1, 2)], 1)


def _scatter(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    footprint: Footprint,
    relation: str,
    grad_query: Tensor,
    grad_key: Tensor,
) -> None:
    """Add the gradients of query and key, by those of the features (N, F, Ho * Wo)."""
    height, width, channels = query.shape[1:]
    taps = footprint.taps
    if relation == "clique":
        queries, keys = footprint.unfold(_to_planes(query)), footprint.unfold(_to_planes(key))
        pairs = gradient.unflatten(1, (taps, taps))
        of_queries = _fold(torch.einsum("nijp,nrjp->nrip", pairs, keys), footprint, height, width)
        grad_query.add_(of_queries.permute(0, 2, 3, 1))
        of_keys = torch.einsum("nijp,nrip->nrjp", pairs, queries)
    else:
        if relation == "star":
            keys, centres = footprint.unfold(_to_planes(key)), footprint.centre(_to_planes(query)).flatten(2)
            of_centres = torch.einsum("ntp,nrtp->nrp", gradient, keys)
            of_keys = torch.einsum("ntp,nrp->nrtp", gradient, centres)
        else:
            of_centres, of_keys = gradient[:, :channels], gradient[:, channels:].unflatten(1, (channels, taps))
        centres_of_map = grad_query[:, :: footprint.stride[0], :: footprint.stride[1]]
        centres_of_map.add_(of_centres.transpose(1, 2).reshape(centres_of_map.shape))
    grad_key.add_(_fold(of_keys, footprint, height, width).permute(0, 2, 3, 1))


def _fold(taps: Tensor, footprint: Footprint, height: int, width: int) -> Tensor:
    """The adjoint of :meth:`Footprint.unfold`: (N, C, taps, Ho * Wo) -> (N, C, H, W)."""
    rows, columns = footprint.padding
    size = (height + 2 * rows, width + 2 * columns)
    kernel_size, stride, dilation, padding_mode = footprint
    padded = torch.nn.functional.fold(taps.flatten(1, 2), size, kernel_size, dilation=dilation, stride=stride)
    if padding_mode == "zeros":
        return padded[..., rows : rows + height, columns : columns + width]
    by_rows = padded.new_zeros(*padded.shape[:2], height, size[1])
    by_rows.index_add_(2, bounce(height, rows, padded.device), padded)
    return by_rows.new_zeros(*padded.shape[:2], height, width).index_add_(
        3, bounce(width, columns, padded.device), by_rows
    )


def _weights(activated: Tensor, weight2: Tensor, bias2: Tensor, footprint: Footprint) -> Tensor:
    """The weights of all pixels: (N, Ho, Wo, Cw) -> (N, Cw, taps, Ho * Wo)."""
    weights = weight2 @ activated.flatten(1, 2).transpose(1, 2) + bias2[:, None]
    return weights.unflatten(1, (-1, footprint.taps))


def _grouped(value: Tensor, footprint: Footprint, weight_channels: int) -> Tensor:
    """The values of all footprints, by the weight that they use: (N, C / Cw, Cw, taps, Ho * Wo)."""
    return footprint.unfold(_to_planes(value)).unflatten(1, (-1, weight_channels))


def _computed(pixels: Tensor) -> Tensor:
    return pixels.to(compute_dtype(pixels.dtype))


def _to_planes(pixels: Tensor) -> Tensor:
    return pixels.permute(0, 3, 1, 2)


def _to_map(planes: Tensor, like: Tensor, footprint: Footprint) -> Tensor:
    """(N, D, Ho * Wo) -> (N, Ho, Wo, D), contiguous, for a map (N, H, W, C) that the footprints read."""
    size = footprint.output_size(like.shape[1], like.shape[2])
    return planes.unflatten(2, size).permute(0, 2, 3, 1).contiguous()
