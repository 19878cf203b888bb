"""The passes of pairwise attention in training: statistics of norms, forward and backward, all by recomputation.

The mapping has two layers, each a batch norm, a ReLU and a linear layer. With r the features of a pair, those of its
relation and then those of its position,

    a = relu(scale1 * r + shift1),   y = relu(scale2 * (weight1 @ a) + shift2),   l = weight2 @ y

and the weights are a softmax of l over the taps; the bias of the last layer cancels. A norm with batch statistics needs
sums over all pairs of all pixels and their taps. Each function here is one pass over the pairs that returns such sums
in float64; none writes a tensor of the size of all pairs on the native backend. The caller turns sums into scales,
shifts and gradients of parameters. Maps are channels last, (N, H, W, C), and may be slices of a wider map's channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .backend import choose, devices_of
from .checks import DTYPES
from .coordinates import coordinates
from .footprint import Footprint, output_size
from .native import native_operator
from .pairwise_operands import POSITION_CHANNELS, PairPosition
from .pairwise_relation import PAIRWISE_RELATIONS, pairwise_relation_in_torch, relation_width


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
    """Sums over all pairs of :func:`pairwise_backward`, in float64. A gradient dx is that of the loss by x.

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


def pairwise_statistics(query: Tensor, key: Tensor, geometry: PairwiseGeometry) -> Tensor:
    """The mean and the biased variance of the features of all pairs.

    Args:
        query: (N, H, W, Cr); float64, float32, float16 or bfloat16.
        key: As ``query``.
        geometry: The pairs.

    Returns:
        (2, D), float64.
    """
    if _is_native(query.device):
        return native_statistics(_pixels(query), _pixels(key), *_describe(geometry))
    features = _features(query, key, geometry).double()
    variance, mean = torch.var_mean(features, dim=(0, 2, 3), correction=0)
    return torch.stack([mean, variance])


def pairwise_moments(
    query: Tensor, key: Tensor, geometry: PairwiseGeometry, scale1: Tensor, shift1: Tensor
) -> tuple[Tensor, Tensor]:
    """The mean (D,) and the biased covariance (D, D) of a over all pairs, float64.

    Args:
        query: (N, H, W, Cr).
        key: As ``query``.
        geometry: The pairs.
        scale1: Of the first norm, (D,).
        shift1: As ``scale1``.
    """
    if _is_native(query.device):
        return native_moments(_pixels(query), _pixels(key), scale1, shift1, *_describe(geometry))
    features = _features(query, key, geometry)
    activations = _affine(features, scale1, shift1).relu_().double().transpose(0, 1).flatten(1)
    mean = activations.mean(1)
    activations -= mean.unsqueeze(1)
    return mean, activations @ activations.t() / activations.shape[1]


def pairwise_forward(
    query: Tensor, key: Tensor, value: Tensor, geometry: PairwiseGeometry, mapping: PairwiseMapping
) -> tuple[Tensor, Tensor]:
    """The attention.

    Args:
        query: (N, H, W, Cr).
        key: As ``query``.
        value: (N, H, W, C), with C a multiple of Cw; channel c uses the weight c mod Cw.
        geometry: The pairs.
        mapping: As it is after the statistics of its norms.

    Returns:
        The output (N, Ho, Wo, C), in the dtype of the maps, and the logarithms of the sums of exp(l) over the taps
        (N, Ho, Wo, Cw), in the dtype of accumulation.
    """
    if _is_native(query.device):
        maps = _pixels(query), _pixels(key), _pixels(value)
        return native_forward(*maps, list(mapping), *_describe(geometry))
    pairs = _Pairs(query, key, geometry, mapping)
    weights = pairs.logits.softmax(2)
    values = _neighbours(value, geometry).to(weights.dtype).unflatten(1, (-1, weights.shape[1]))
    output = (weights.unsqueeze(1) * values).sum(3).flatten(1, 2).to(value.dtype)
    return _to_map(output, query, geometry), _to_map(pairs.logits.logsumexp(2), query, geometry)


def pairwise_backward(
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
    """Overwrite the gradients of the maps with those of frozen norms, and return the sums of all other gradients.

    Args:
        grad_output: (N, Ho, Wo, C).
        query: (N, H, W, Cr).
        key: As ``query``.
        value: (N, H, W, C).
        output: Of :func:`pairwise_forward`.
        logsumexp: Of :func:`pairwise_forward`.
        geometry: The pairs.
        mapping: That of the forward pass.
        grad_query: (N, H, W, Cr), overwritten.
        grad_key: As ``grad_query``; another map, even where query and key are one.
        grad_value: (N, H, W, C), overwritten.
    """
    if _is_native(query.device, grad_query, grad_key, grad_value):
        maps = (_pixels(item) for item in (grad_output, query, key, value, output))
        described = _describe(geometry)
        sums = native_backward(*maps, logsumexp, list(mapping), *described, grad_query, grad_key, grad_value)
        return PairwiseSums(*sums[:4], None if geometry.position is None else sums[4])
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


def pairwise_correction(
    query: Tensor,
    key: Tensor,
    geometry: PairwiseGeometry,
    mapping: PairwiseMapping,
    matrix: Tensor,
    offset: Tensor,
    grad_query: Tensor,
    grad_key: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """Add what the batch statistics of the second norm add to the gradients.

    That is g = 1[a > 0] (matrix (a - center) + offset) of every pair, which reaches the maps by the first norm's scale
    and the relation.

    Args:
        query: (N, H, W, Cr).
        key: As ``query``.
        geometry: The pairs.
        mapping: That of the forward pass.
        matrix: (D, D), float64.
        offset: (D,), float64.
        grad_query: (N, H, W, Cr), to which the gradient is added.
        grad_key: As ``grad_query``.

    Returns:
        The additions to ``features`` and ``position`` of :class:`PairwiseSums`.
    """
    if _is_native(query.device, grad_query, grad_key):
        operands = (_pixels(query), _pixels(key), list(mapping), matrix, offset)
        features, position = native_correction(*operands, *_describe(geometry), grad_query, grad_key)
        return features, None if geometry.position is None else position
    pairs = _Pairs(query, key, geometry, mapping, hidden=False)
    dtype = pairs.activations.dtype
    centered = pairs.activations - _column(pairs.mapping.center)
    grads = torch.einsum("ed,ndkl->nekl", matrix.to(dtype), centered) + _column(offset.to(dtype))
    return pairs.scatter(_masked(grads, pairs.activations), grad_query, grad_key)


def pairwise_norm_backward(
    query: Tensor,
    key: Tensor,
    geometry: PairwiseGeometry,
    mapping: PairwiseMapping,
    factors: Tensor,
    grad_query: Tensor,
    grad_key: Tensor,
) -> Tensor | None:
    """Add what the batch statistics of the first norm add to the gradients: -(factors[0] + factors[1] * (r - mean1)).

    Args:
        query: (N, H, W, Cr).
        key: As ``query``.
        geometry: The pairs.
        mapping: That of the forward pass.
        factors: (2, D), float64; they include the norm's scale.
        grad_query: (N, H, W, Cr), to which the gradient is added.
        grad_key: As ``grad_query``.

    Returns:
        The addition to ``position`` of :class:`PairwiseSums`.
    """
    if _is_native(query.device, grad_query, grad_key):
        operands = (_pixels(query), _pixels(key), mapping.mean1, factors)
        position = native_norm_backward(*operands, *_describe(geometry), grad_query, grad_key)
        return None if geometry.position is None else position
    features = _features(query, key, geometry)
    constant, slope = (_column(factor.to(features.dtype)) for factor in factors)
    grads = -(constant + slope * (features - _column(mapping.mean1.to(features.dtype))))
    return _scatter(grads, query, key, geometry, grad_query, grad_key)


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


class _Pairs:
    """What the mapping computes of all pairs, (N, channels, taps, pixels), in plain torch."""

    def __init__(
        self, query: Tensor, key: Tensor, geometry: PairwiseGeometry, mapping: PairwiseMapping, *, hidden: bool = True
    ) -> None:
        self.query, self.key, self.geometry = query, key, geometry
        self.features = _features(query, key, geometry)
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


def _features(query: Tensor, key: Tensor, geometry: PairwiseGeometry) -> Tensor:
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


def _is_native(device: torch.device, *written: Tensor) -> bool:
    """Whether the native kernels compute a pass; they write gradients into maps with contiguous channels."""
    return (
        device.type in _native_devices
        and choose(device) == "native"
        and all(item.stride(3) == 1 or item.shape[3] == 1 for item in written)
    )


def _pixels(features: Tensor) -> Tensor:
    """The map itself, or a copy if its channels are not contiguous."""
    return features if features.stride(3) == 1 or features.shape[3] == 1 else features.contiguous()


def _describe(geometry: PairwiseGeometry) -> tuple[Any, ...]:
    """The arguments of the native operators that describe the pairs."""
    (kernel_size, stride, dilation, padding_mode), relation, position = geometry
    query, key, size = position or (None, None, None)
    return query, key, list(size or ()), kernel_size, relation, stride, dilation, padding_mode


def _fake_statistics(query: Tensor, relation: str, query_position: Tensor | None) -> Tensor:
    return query.new_empty(2, _width(query, relation, query_position), dtype=torch.float64)


def _fake_moments(query: Tensor, relation: str, query_position: Tensor | None) -> tuple[Tensor, Tensor]:
    features = _width(query, relation, query_position)
    return query.new_empty(features, dtype=torch.float64), query.new_empty(features, features, dtype=torch.float64)


def _fake_forward(query: Tensor, value: Tensor, mapping: list[Tensor], stride: Any) -> tuple[Tensor, Tensor]:
    size = query.shape[0], *output_size(query.shape[1], query.shape[2], stride)
    wide = torch.promote_types(query.dtype, torch.float32)
    return value.new_empty(*size, value.shape[3]), query.new_empty(*size, mapping[-1].shape[0], dtype=wide)


def _fake_backward(query: Tensor, mapping: list[Tensor], query_position: Tensor | None) -> tuple[Tensor, ...]:
    hidden, features = mapping[4].shape
    sizes = (hidden,), (hidden, features), mapping[-1].shape, (2, features), _position_size(query_position)
    return tuple(query.new_empty(size, dtype=torch.float64) for size in sizes)


def _fake_correction(query: Tensor, offset: Tensor, query_position: Tensor | None) -> tuple[Tensor, Tensor]:
    sizes = (2, offset.shape[0]), _position_size(query_position)
    first, second = (query.new_empty(size, dtype=torch.float64) for size in sizes)
    return first, second


def _fake_norm_backward(query: Tensor, query_position: Tensor | None) -> Tensor:
    return query.new_empty(_position_size(query_position), dtype=torch.float64)


def _width(query: Tensor, relation: str, query_position: Tensor | None) -> int:
    return relation_width(relation, query.shape[3]) + _position_size(query_position)[1]


def _position_size(query_position: Tensor | None) -> tuple[int, int, int]:
    return 2, 0 if query_position is None else query_position.shape[0], 3


native_statistics = native_operator("pairwise_training_statistics", _fake_statistics)
native_moments = native_operator("pairwise_training_moments", _fake_moments)
native_forward = native_operator("pairwise_training_forward", _fake_forward)
native_backward = native_operator("pairwise_training_backward", _fake_backward)
native_correction = native_operator("pairwise_training_correction", _fake_correction)
native_norm_backward = native_operator("pairwise_training_norm_backward", _fake_norm_backward)
_native_devices = devices_of("pairwise_training_forward")
