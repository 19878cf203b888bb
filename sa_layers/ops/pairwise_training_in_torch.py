"""The passes of pairwise attention in training, in plain torch; see :mod:`sa_layers.ops.pairwise_training`.

Maps are channels last here, (N, H, W, C), and (N, C, taps, pixels) inside. A pass holds the features of all pairs while
it runs, and keeps none of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .coordinates import coordinates
from .pairwise_relation import pairwise_relation_in_torch
from .pairwise_training_operands import PairwiseGeometry, PairwiseMapping, PairwiseSums


def statistics(query: Tensor, key: Tensor, geometry: PairwiseGeometry) -> Tensor:
    """Compute :func:`pairwise_statistics`: (2, D) float64."""
    features = features_of(query, key, geometry).double()
    variance, mean = torch.var_mean(features, dim=(0, 2, 3), correction=0)
    return torch.stack([mean, variance])


def moments(
    query: Tensor, key: Tensor, geometry: PairwiseGeometry, scale1: Tensor, shift1: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute :func:`pairwise_moments`: (D,) and (D, D) float64."""
    features = features_of(query, key, geometry)
    activations = _affine(features, scale1, shift1).relu_().double().transpose(0, 1).flatten(1)
    mean = activations.mean(1)
    activations -= mean.unsqueeze(1)
    return mean, activations @ activations.t() / activations.shape[1]


def forward(
    query: Tensor, key: Tensor, value: Tensor, geometry: PairwiseGeometry, mapping: PairwiseMapping
) -> tuple[Tensor, Tensor]:
    """Compute :func:`pairwise_forward`: (N, Ho, Wo, C) and (N, Ho, Wo, Cw)."""
    pairs = _Pairs(query, key, geometry, mapping)
    weights = pairs.logits.softmax(2)
    values = _neighbours(value, geometry).to(weights.dtype).unflatten(1, (-1, weights.shape[1]))
    output = (weights.unsqueeze(1) * values).sum(3).flatten(1, 2).to(value.dtype)
    return _to_map(output, query, geometry), _to_map(pairs.logits.logsumexp(2), query, geometry)


def backward(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    logsumexp: Tensor,
    geometry: PairwiseGeometry,
    mapping: PairwiseMapping,
    grad_query: Tensor,
    grad_key: Tensor,
    grad_value: Tensor,
) -> PairwiseSums:
    """Compute :func:`pairwise_backward`: sums, and gradients in place."""
    pairs = _Pairs(query, key, geometry, mapping)
    weights = (pairs.logits - _to_pixels(logsumexp).unsqueeze(2)).exp()
    share = (-1, weights.shape[1])
    grads, outputs = (_to_pixels(item).to(weights.dtype).unflatten(1, share) for item in (grad_output, output))
    values = _neighbours(value, geometry).to(weights.dtype).unflatten(1, share)
    grad_weights = (grads.unsqueeze(3) * values).sum(1)
    grad_logits = weights * (grad_weights - (grads * outputs).sum(1).unsqueeze(2))
    grad_values = (weights.unsqueeze(1) * grads.unsqueeze(3)).flatten(1, 2)
    grad_value.copy_(_pull_back(lambda maps: _neighbours(maps, geometry), grad_values, value)[0])
    folded = pairs.mapping
    grad_hidden = _masked(torch.einsum("go,ngkl->nokl", folded.weight2, grad_logits), pairs.hidden)
    grad_activations = torch.einsum("o,od,nokl->ndkl", folded.scale2, folded.weight1, grad_hidden)
    grad_activations = _masked(grad_activations, pairs.activations)
    centered = (pairs.activations - _column(folded.center)).double()
    grad_query.zero_(), grad_key.zero_()
    features, position = pairs.scatter(grad_activations, grad_query, grad_key)
    return PairwiseSums(
        grad_hidden.double().sum((0, 2, 3)),
        torch.einsum("nokl,ndkl->od", grad_hidden.double(), centered),
        torch.einsum("ngkl,nokl->go", grad_logits.double(), pairs.hidden.double()),
        features,
        position,
    )


def correction(
    query: Tensor,
    key: Tensor,
    geometry: PairwiseGeometry,
    mapping: PairwiseMapping,
    matrix: Tensor,
    offset: Tensor,
    grad_query: Tensor,
    grad_key: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """Compute :func:`pairwise_correction`: sums, and gradients in place."""
    pairs = _Pairs(query, key, geometry, mapping, hidden=False)
    dtype = pairs.activations.dtype
    centered = pairs.activations - _column(pairs.mapping.center)
    grads = torch.einsum("ed,ndkl->nekl", matrix.to(dtype), centered) + _column(offset.to(dtype))
    return pairs.scatter(_masked(grads, pairs.activations), grad_query, grad_key)


def norm_backward(
    query: Tensor,
    key: Tensor,
    geometry: PairwiseGeometry,
    mapping: PairwiseMapping,
    factors: Tensor,
    grad_query: Tensor,
    grad_key: Tensor,
) -> Tensor | None:
    """Compute :func:`pairwise_norm_backward`: a sum, and gradients in place."""
    features = features_of(query, key, geometry)
    constant, slope = (_column(factor.to(features.dtype)) for factor in factors)
    grads = -(constant + slope * (features - _column(mapping.mean1.to(features.dtype))))
    return _scatter(grads, query, key, geometry, grad_query, grad_key)


class _Pairs:
    """What the mapping computes of all pairs, (N, channels, taps, pixels), in plain torch."""

    def __init__(
        self, query: Tensor, key: Tensor, geometry: PairwiseGeometry, mapping: PairwiseMapping, *, hidden: bool = True
    ) -> None:
        self.query, self.key, self.geometry = query, key, geometry
        self.features = features_of(query, key, geometry)
        self.mapping = mapping = mapping.to(self.features.dtype)
        self.activations = _affine(self.features, mapping.scale1, mapping.shift1).relu_()
        if hidden:
            products = torch.einsum("od,ndkl->nokl", mapping.weight1, self.activations)
            self.hidden = _affine(products, mapping.scale2, mapping.shift2).relu_()
            self.logits = torch.einsum("go,nokl->ngkl", mapping.weight2, self.hidden)

    def scatter(self, grads: Tensor, grad_query: Tensor, grad_key: Tensor) -> tuple[Tensor, Tensor | None]:
        """Add gradients of scale1 * r to those of the maps; return their sums and the gradients of the position."""
        wide = grads.double()
        moments = wide * (self.features.double() - _column(self.mapping.mean1.double()))
        sums = torch.stack([wide.sum((0, 2, 3)), moments.sum((0, 2, 3))])
        grads = grads * _column(self.mapping.scale1)
        return sums, _scatter(grads, self.query, self.key, self.geometry, grad_query, grad_key)


def _column(vector: Tensor) -> Tensor:
    return vector.view(-1, 1, 1)


def _affine(features: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.addcmul(_column(shift.to(features.dtype)), features, _column(scale.to(features.dtype)))


def _masked(grads: Tensor, activations: Tensor) -> Tensor:
    """The gradients before a ReLU; a NaN does not pass where the ReLU is 0, as in torch."""
    return torch.where(activations > 0, grads, 0)


def _neighbours(features: Tensor, geometry: PairwiseGeometry) -> Tensor:
    """The pixels of all footprints: (N, H, W, C) -> (N, C, taps, pixels)."""
    return geometry.footprint.unfold(features.permute(0, 3, 1, 2))


def _to_pixels(features: Tensor) -> Tensor:
    """(N, H, W, C) -> (N, C, pixels)."""
    return features.flatten(1, 2).transpose(1, 2)


def _to_map(pixels: Tensor, query: Tensor, geometry: PairwiseGeometry) -> Tensor:
    """(N, C, pixels) -> (N, Ho, Wo, C), contiguous."""
    height, width = geometry.footprint.output_size(query.shape[1], query.shape[2])
    return pixels.transpose(1, 2).unflatten(1, (height, width)).contiguous()


def _relation(query: Tensor, key: Tensor, geometry: PairwiseGeometry) -> Tensor:
    """The relation of all pairs in the dtype of accumulation: (N, D - P, taps, pixels)."""
    maps = [item.to(torch.promote_types(item.dtype, torch.float32)).permute(0, 3, 1, 2) for item in (query, key)]
    return pairwise_relation_in_torch(maps[0], maps[1], geometry.footprint, geometry.relation)


def _encoding(query: Tensor, matrices: Tensor, geometry: PairwiseGeometry) -> Tensor:
    """The position features of the pairs of one image: (1, P, taps, pixels). matrices are those of both pixels."""
    assert geometry.position is not None
    grid = coordinates(query[:1, ..., :1].permute(0, 3, 1, 2).to(matrices.dtype), geometry.position.size)
    grid = torch.cat([grid, torch.ones_like(grid[:, :1])], dim=1)
    here, there = torch.einsum("spc,nchw->snphw", matrices, grid)
    return pairwise_relation_in_torch(here, there, geometry.footprint, "summation")


def features_of(query: Tensor, key: Tensor, geometry: PairwiseGeometry) -> Tensor:
    """The features of all pairs in the dtype of accumulation: (N, D, taps, pixels)."""
    features = _relation(query, key, geometry)
    if geometry.position is None:
        return features
    encoding = _encoding(query, torch.stack(geometry.position[:2]).to(features.dtype), geometry)
    return torch.cat([features, encoding.expand(len(features), -1, -1, -1)], dim=1)


def _scatter(
    grads: Tensor, query: Tensor, key: Tensor, geometry: PairwiseGeometry, grad_query: Tensor, grad_key: Tensor
) -> Tensor | None:
    """Add gradients of the features of pairs to those of the maps, and return those of the position."""
    of_relation = grads[:, : grads.shape[1] - geometry.positions]
    gradients = _pull_back(lambda x, y: _relation(x, y, geometry), of_relation, query, key)
    grad_query += gradients[0]
    grad_key += gradients[1]
    if geometry.position is None:
        return None
    of_position = grads[:, grads.shape[1] - geometry.positions :].double().sum(0, keepdim=True)
    matrices = torch.stack(geometry.position[:2]).double()
    return _pull_back(lambda matrices: _encoding(query, matrices, geometry), of_position, matrices)[0]


def _pull_back(function: Callable[..., Tensor], grads: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """The gradients of the inputs of a function, also where gradients are off, as in a backward pass."""
    with torch.enable_grad():
        leaves = [item.detach().requires_grad_() for item in inputs]
        output = function(*leaves)
    return torch.autograd.grad(output, leaves, grads.to(output.dtype))
