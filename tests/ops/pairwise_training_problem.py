"""Problems of the passes of pairwise attention in training, and what autograd makes of them, in float64."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sa_layers.ops import Footprint, MappingLayer, PairPosition
from sa_layers.ops.mapping_layer import apply_mapping
from sa_layers.ops.pairwise_attention import pairwise_attention_unfused
from sa_layers.ops.pairwise_training import (
    pairwise_backward,
    pairwise_correction,
    pairwise_forward,
    pairwise_moments,
    pairwise_norm_backward,
    pairwise_statistics,
)
from sa_layers.ops.pairwise_training_in_torch import features_of
from sa_layers.ops.pairwise_training_operands import PairwiseGeometry, PairwiseMapping
from sa_layers.ops.softmax_aggregation import softmax_aggregation

EPS = 1e-5
# Map, kernel_size, stride, dilation, padding_mode.
GEOMETRIES = [
    ((6, 7), 3, 1, 1, "reflect"),
    ((6, 5), 7, 1, 1, "reflect"),
    ((9, 8), (3, 5), (2, 1), (1, 2), "reflect"),
    ((5, 6), 3, 1, 1, "zeros"),
    ((9, 7), (5, 3), (1, 3), (2, 1), "zeros"),
    ((1, 2), 3, 1, 1, "reflect"),
]
# Channels of query and key, of the hidden layer, of the weights, of the value.
WIDTHS = [(4, 4, 2, 16), (3, 5, 3, 9)]


class Parameters(NamedTuple):
    """Two batch norms, two linear layers and the matrices of the position."""

    gamma1: Tensor
    beta1: Tensor
    weight1: Tensor
    gamma2: Tensor
    beta2: Tensor
    weight2: Tensor
    position: Tensor | None


class Problem(NamedTuple):
    maps: tuple[Tensor, Tensor, Tensor]
    geometry: PairwiseGeometry
    parameters: Parameters
    grad_output: Tensor

    def to(self, dtype: torch.dtype) -> Problem:
        wide = torch.promote_types(dtype, torch.float32)
        query, key, value, grad_output = (item.to(dtype) for item in (*self.maps, self.grad_output))
        position = self.geometry.position
        if position is not None:
            position = PairPosition(position.query.to(wide), position.key.to(wide), position.size)
        geometry = self.geometry._replace(position=position)
        return self._replace(maps=(query, key, value), geometry=geometry, grad_output=grad_output)


def make_problem(
    relation: str,
    geometry: tuple,
    widths: tuple[int, int, int, int] = WIDTHS[0],
    position: str | None = "relative",
    batch: int = 2,
    seed: int = 0,
) -> Problem:
    """Operands in float64, which are numbers of bfloat16 where they are rounded to the dtype of the maps."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    size, kernel_size, stride, dilation, padding_mode = geometry
    channels, hidden, weights, value_channels = widths
    footprint = Footprint.parse(kernel_size, stride, dilation, padding_mode)
    matrix = {"relative": 0.5 * normal(2, 3), "absolute": normal(4, 3), None: normal(0, 3)}[position]
    matrices = None
    if position == "relative":
        matrices = torch.stack([matrix, -matrix])
    elif position == "absolute":
        here = torch.arange(4).unsqueeze(1) < 2
        matrices = torch.stack([matrix * here, matrix * ~here])
    pairs = None if matrices is None else PairPosition(*matrices, size=(5, 4) if position == "absolute" else None)
    described = PairwiseGeometry(footprint, relation, pairs)
    features = described.features(channels)
    parameters = Parameters(
        1 + 0.3 * normal(features),
        0.3 * normal(features),
        normal(hidden, features) / features**0.5,
        1 + 0.3 * normal(hidden),
        0.3 * normal(hidden),
        normal(weights, hidden) / hidden**0.5,
        matrices,
    )
    maps = [normal(batch, *size, number).bfloat16().double() for number in (channels, channels, value_channels)]
    grad_output = normal(batch, *footprint.output_size(*size), value_channels).bfloat16().double()
    return Problem((maps[0], maps[1], maps[2]), described, parameters, grad_output)


def expected(problem: Problem, frozen: Tensor | None) -> list[Tensor]:
    """Output and gradients by autograd; frozen holds the running mean and variance of the first norm, then those of
    the second."""
    maps = [item.permute(0, 3, 1, 2).detach().requires_grad_() for item in problem.maps]
    leaves = Parameters(*(None if item is None else item.detach().requires_grad_() for item in problem.parameters))
    geometry, position = problem.geometry, problem.geometry.position
    if position is not None:
        assert leaves.position is not None
        position = PairPosition(leaves.position[0], leaves.position[1], position.size)
    footprint = geometry.footprint
    bias = leaves.weight2.new_zeros(len(leaves.weight2))
    if frozen is not None:
        width = len(leaves.gamma1)
        means, variances = frozen
        scale = torch.cat([leaves.gamma1, leaves.gamma2]) / (variances + EPS).sqrt()
        shift = torch.cat([leaves.beta1, leaves.beta2]) - means * scale
        none = torch.zeros_like(leaves.beta2)
        mapping = [
            MappingLayer(scale[:width], shift[:width], leaves.weight1, none),
            MappingLayer(scale[width:], shift[width:], leaves.weight2, bias),
        ]
        output = pairwise_attention_unfused(*maps, mapping, footprint, geometry.relation, position)
    else:
        described = geometry._replace(position=position)
        features = features_of(maps[0].permute(0, 2, 3, 1), maps[1].permute(0, 2, 3, 1), described)
        features = torch.nn.functional.batch_norm(features, None, None, leaves.gamma1, leaves.beta1, True, 0.1, EPS)
        features = torch.einsum("oi,nikl->nokl", leaves.weight1, features.relu())
        features = torch.nn.functional.batch_norm(features, None, None, leaves.gamma2, leaves.beta2, True, 0.1, EPS)
        logits = torch.einsum("oi,nikl->nokl", leaves.weight2, features.relu())
        output = softmax_aggregation(maps[2], logits, *footprint)
    inputs = [*maps, *(item for item in leaves if item is not None)]
    gradients = torch.autograd.grad(output, inputs, problem.grad_output.permute(0, 3, 1, 2))
    rows = [item.permute(0, 2, 3, 1) for item in (output, *gradients[:3])]
    return [*rows, *gradients[3:]]


def train(problem: Problem, frozen: Tensor | None) -> list[Tensor]:
    """Output and gradients by the passes. Gradient maps are slices of a wider map."""
    query, key, value = problem.maps
    geometry, parameters = problem.geometry, problem.parameters
    gamma1, beta1, weight1, gamma2, beta2, weight2, _ = parameters
    width = len(gamma1)
    height, length = geometry.footprint.output_size(query.shape[1], query.shape[2])
    pairs = len(query) * height * length * geometry.footprint.taps
    mean1, variance1 = pairwise_statistics(query, key, geometry) if frozen is None else frozen[:, :width]
    deviation1 = (variance1 + EPS).rsqrt()
    scale1 = gamma1 * deviation1
    shift1 = beta1 - mean1 * scale1
    if frozen is None:
        center, covariance = pairwise_moments(query, key, geometry, scale1, shift1)
        mean2, variance2 = weight1 @ center, torch.einsum("od,de,oe->o", weight1, covariance, weight1)
    else:
        center, covariance = torch.zeros_like(mean1), torch.zeros(width, width).double()
        mean2, variance2 = frozen[:, width:]
    deviation2 = (variance2 + EPS).rsqrt()
    scale2 = gamma2 * deviation2
    mapping = PairwiseMapping(scale1, shift1, mean1, center, weight1, scale2, beta2 - mean2 * scale2, weight2)
    output, logsumexp = pairwise_forward(query, key, value, geometry, mapping)
    channels = query.shape[-1]
    merged = torch.full((*query.shape[:3], 2 * channels + value.shape[-1]), torch.nan, dtype=query.dtype)
    grads = merged.split([channels, channels, value.shape[-1]], dim=-1)
    operands = (problem.grad_output, query, key, value, output, logsumexp)
    sums = pairwise_backward(*operands, geometry, mapping, *grads)
    features, position = sums.features, sums.position
    products = sums.products + torch.outer(sums.hidden, center)
    grad_scale2 = (weight1 * products).sum(1) - mean2 * sums.hidden
    grad_gamma2, grad_weight1 = deviation2 * grad_scale2, scale2.unsqueeze(1) * products
    if frozen is None:
        offset, slope = sums.hidden / pairs, grad_gamma2 / pairs
        curvature = scale2 * slope * deviation2
        grad_weight1 = scale2.unsqueeze(1) * (
            sums.products - (slope * deviation2 * pairs).unsqueeze(1) * (weight1 @ covariance)
        )
        matrix, shift = -(weight1.t() * curvature) @ weight1, -weight1.t() @ (scale2 * offset)
        added = pairwise_correction(query, key, geometry, mapping, matrix, shift, *grads[:2])
        features = features + added[0]
        factors = torch.stack([scale1 * features[0], scale1 * features[1] * deviation1**2]) / pairs
        last = pairwise_norm_backward(query, key, geometry, mapping, factors, *grads[:2])
        if position is not None:
            position = position + added[1] + last
    grad_gamma1 = deviation1 * features[1]
    of_parameters = [grad_gamma1, features[0], grad_weight1, grad_gamma2, sums.hidden, sums.weight2]
    return [output, *grads, *of_parameters, *([] if position is None else [position])]


def running_statistics(problem: Problem) -> Tensor:
    """Of both norms: neither the statistics of the batch, nor far from them."""
    query, key, _ = problem.maps
    layers = (problem.parameters.gamma1, problem.parameters.gamma2)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(2, sum(map(len, layers)), generator=generator, dtype=torch.float64)
    features = features_of(query, key, problem.geometry).double()
    layer = MappingLayer(*problem.parameters[:3], torch.zeros(len(layers[1])).double())
    hidden = apply_mapping(features, [layer])
    moments = [torch.stack([item.mean((0, 2, 3)), item.var((0, 2, 3))]) for item in (features, hidden)]
    statistics = torch.cat(moments, dim=1)
    return statistics * (1 + 0.1 * noise.abs())


def comparable(results: list[Tensor], problem: Problem) -> list[Tensor]:
    """Of opposite matrices of the position, only the difference of the gradients is defined."""
    position = problem.parameters.position
    if position is None or not torch.equal(position[0], -position[1]):
        return results
    return [*results[:-1], results[-1][0] - results[-1][1]]


def check(
    results: list[Tensor], wanted: list[Tensor], problem: Problem, tolerance: float, *, flips: bool = False
) -> None:
    """Compare every number, or, where rounding may change the mask of a ReLU or two, root mean squares."""
    results, wanted = (comparable(item, problem) for item in (results, wanted))
    names = [name for name in Parameters._fields if name != "position" or problem.parameters.position is not None]
    names = ["output", "query", "key", "value", *names]
    scale = max(item.abs().max().item() for item in wanted[4:])
    for name, result, reference in zip(names, results, wanted, strict=True):
        size = 0.02 + (reference.abs().max().item() if name in names[:4] else scale)
        if flips:
            error, size = (item.double().square().mean().sqrt().item() for item in (result - reference, reference))
            assert error <= tolerance * (size + 0.02 * scale), name
            continue
        torch.testing.assert_close(
            result.double(), reference, rtol=0, atol=tolerance * size, msg=lambda text, name=name: f"{name}: {text}"
        )
