"""Random training steps of both attention layers: the output, all gradients and the running statistics of the norms."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sa_layers import ops
from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention

from . import oracle
from .attentions import maps
from .case import Case
from .draw import Draw, array, footprint_of
from .oracle import Array, Estimate

MIN_GAP = 3e-5
"""In float32, rounding may move a value across the zero of a ReLU if it is this close, which changes all gradients."""


def pairwise_training(draw: Draw) -> Case:
    restrict(draw)
    relation, channels, weights = draw.one_of(ops.PAIRWISE_RELATIONS), draw.channels(16), draw.channels(8)
    position, coordinates = draw.one_of((None, "relative", "absolute")), None
    if position is not None:
        coordinates = draw.one_of((None, None, (7, 9), (64, 33)))
    widest = max(2 * channels + 4, weights)
    operands, arguments = maps(draw, channels, weights, widest, 81)
    layer = make_layer(
        draw,
        PairwiseSelfAttention,
        operands,
        weights,
        relation=relation,
        position=position,
        position_size=coordinates,
        **arguments,
    )
    footprint = footprint_of(operands["query"], arguments)
    query, key, value = map(array, operands.values())
    grad_output = draw.map(*value.shape[:2], *footprint.output_size, extreme=False)
    related = oracle.pairwise_relation(query, key, relation, footprint).value
    width = related.shape[1]
    if position is not None:
        encoded = oracle.pair_position(*matrices(layer.position), coordinates, footprint).value
        related = np.concatenate([related, np.broadcast_to(encoded, (len(related), *encoded.shape[1:]))], axis=1)
    mapping = Mapping(layer, related)

    weight = oracle.softmax(Estimate(mapping.output, np.abs(mapping.output)))
    output = oracle.aggregate(value, weight, footprint).value
    of_value, of_weight = oracle.aggregation_gradients(array(grad_output), value, weight, footprint)
    of_related, gradients = mapping.gradients(oracle.logits_gradient(of_weight, weight).value)
    of_query, of_key = oracle.pairwise_relation_gradients(of_related[:, :width], query, key, relation, footprint)
    gradients |= {"query": of_query.value, "key": of_key.value, "value": of_value.value}
    if position is not None:
        both = oracle.pair_position_gradients(of_related[:, width:], coordinates, footprint)
        of_matrix = both[0] - both[1] if position == "relative" else both[0][:2] + both[1][2:]
        gradients["position.transform.weight"] = of_matrix[:, :2, None, None]
        gradients["position.transform.bias"] = of_matrix[:, 2]
    return make_case(draw, layer, operands, grad_output, output, gradients, mapping)


def patchwise_training(draw: Draw) -> Case:
    restrict(draw)
    relation, channels, weights = draw.one_of(ops.PATCHWISE_RELATIONS), draw.channels(12), draw.channels(12)
    operands, arguments = maps(draw, channels, weights, channels + weights, 9 if relation == "clique" else 49)
    layer = make_layer(draw, PatchwiseSelfAttention, operands, weights, relation=relation, **arguments)
    footprint = footprint_of(operands["query"], arguments)
    query, key, value = map(array, operands.values())
    grad_output = draw.map(*value.shape[:2], *footprint.output_size, extreme=False)
    mapping = Mapping(layer, oracle.patchwise_relation(query, key, relation, footprint).value)

    weight = mapping.output.reshape(len(value), weights, *footprint.index.shape)
    estimate = Estimate(weight, np.abs(weight))
    output = oracle.aggregate(value, estimate, footprint).value
    of_value, of_weight = oracle.aggregation_gradients(array(grad_output), value, estimate, footprint)
    of_related, gradients = mapping.gradients(of_weight.value.reshape(mapping.output.shape))
    of_query, of_key = oracle.patchwise_relation_gradients(of_related, query, key, relation, footprint)
    gradients |= {"query": of_query, "key": of_key, "value": of_value.value}
    return make_case(draw, layer, operands, grad_output, output, gradients, mapping)


def restrict(draw: Draw) -> None:
    """Choose float64 or float32, without extreme values other than an offset in float64."""
    if draw.dtype != torch.float64:
        draw.dtype = torch.float32
    if draw.extreme != "offset" or draw.dtype != torch.float64:
        draw.extreme = ""


def make_layer(
    draw: Draw, layer_class: type[Any], operands: dict[str, Tensor], weights: int, **options: Any
) -> nn.Module:
    """A layer with random parameters and running statistics, of whose norms some, all or none are frozen."""
    channels = operands["value"].shape[1]
    norm = partial(nn.BatchNorm2d, eps=draw.one_of((1e-5, 1e-3, 0.1)), momentum=draw.one_of((0.1, 0.3, None)))
    layer: nn.Module = layer_class(
        1,
        channels,
        relation_channels=operands["query"].shape[1],
        mapping_layers=draw.one_of((1, 2, 2, 3)),
        share=channels // weights,
        norm_layer=norm,
        **options,
    ).to(draw.dtype)
    with torch.no_grad():
        for name, tensor in layer.state_dict().items():
            fan_in = tensor.shape[1] if tensor.ndim == 4 else 1
            if tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(draw.normal(*tensor.shape)) * fan_in**-0.5)
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    pixels = (operands["query"][:, :1, :: layer.stride[0], :: layer.stride[1]]).numel()
    frozen = 1.0 if pixels <= 1 else draw.one_of((0.0, 0.0, 0.5, 1.0))  # one value has no statistics
    for module in layer.mapping:
        module.train(not draw.chance(frozen))
    return layer


def matrices(position: nn.Module) -> tuple[Array, Array]:
    """The matrices of pixel and neighbour of a position encoding, (P, 3) each."""
    transform: Any = position.transform
    matrix = np.concatenate([array(transform.weight)[:, :, 0, 0], array(transform.bias)[:, None]], axis=1)
    if position.position == "relative":
        return matrix, -matrix
    zeros = np.zeros_like(matrix)
    return np.concatenate([matrix, zeros]), np.concatenate([zeros, matrix])


class Mapping:
    """The mapping of a layer in float64: its output, gradients and statistics."""

    def __init__(self, layer: Any, features: Array) -> None:
        self.norms, self.linear_layers = layer.mapping[::3], layer.mapping[2::3]
        self.statistics: dict[str, Array] = {}
        self.gap = np.inf  # of all inputs of a ReLU, the smallest distance from 0
        self.centred: list[Array] = []
        self.inverse_deviations: list[Array] = []
        self.layers: list[tuple[Array, ...]] = []
        for index, (norm, linear) in enumerate(zip(self.norms, self.linear_layers, strict=True)):
            mean, variance = array(norm.running_mean), array(norm.running_var)
            if norm.training:
                mean, variance = features.mean((0, 2, 3)), features.var((0, 2, 3))
                count = features.size // features.shape[1]
                momentum = 1 if norm.momentum is None else norm.momentum
                for name, found in {"mean": mean, "var": variance * count / (count - 1)}.items():
                    before = array(getattr(norm, f"running_{name}"))
                    self.statistics[f"mapping.{3 * index}.running_{name}"] = before + momentum * (found - before)
            inverse_deviation = 1 / np.sqrt(variance + norm.eps)
            scale, shift = array(norm.weight) * inverse_deviation, array(norm.bias)
            bias = np.zeros(linear.weight.shape[0]) if linear.bias is None else array(linear.bias)
            features = features - mean[:, None, None]
            before_relu = features * scale[:, None, None] + shift[:, None, None]
            self.gap = min(self.gap, np.abs(before_relu).min(initial=np.inf))
            self.centred.append(features)
            self.inverse_deviations.append(inverse_deviation)
            self.layers.append((scale, shift, array(linear.weight)[:, :, 0, 0], bias))
            features = oracle.mapping(Estimate(features, np.abs(features)), self.layers[-1:]).value
        self.output = features

    def gradients(self, grad: Array) -> tuple[Array, dict[str, Array]]:
        """The gradients of the features, and of the parameters by name."""
        gradients: dict[str, Array] = {}
        for index in reversed(range(len(self.layers))):
            norm, linear, features = self.norms[index], self.linear_layers[index], self.centred[index]
            layer, inverse_deviation = self.layers[index], self.inverse_deviations[index]
            grad, (of_scale, of_shift, of_weight, of_bias) = oracle.mapping_gradients(grad, features, [layer])
            of_norm = inverse_deviation * of_scale
            if norm.training:  # through mean and variance
                normalized = features * inverse_deviation[:, None, None]
                of_statistics = of_shift[:, None, None] + normalized * of_norm[:, None, None]
                grad = grad - layer[0][:, None, None] * of_statistics / (features.size // features.shape[1])
            gradients |= {f"mapping.{3 * index}.weight": of_norm, f"mapping.{3 * index}.bias": of_shift}
            gradients[f"mapping.{3 * index + 2}.weight"] = of_weight[:, :, None, None]
            if linear.bias is not None:
                gradients[f"mapping.{3 * index + 2}.bias"] = of_bias
        return grad, gradients


def make_case(
    draw: Draw,
    layer: nn.Module,
    operands: dict[str, Tensor],
    grad_output: Tensor,
    output: Array,
    gradients: dict[str, Array],
    mapping: Mapping,
) -> Case:
    """Expect the gradients of a random part of the operands and parameters, the output and the running statistics."""
    names = [name for name in gradients if not draw.chance(draw.one_of((0.0, 0.3)))] or ["query"]
    results = {"output": output} | mapping.statistics
    if draw.dtype == torch.float64 or mapping.gap > MIN_GAP:
        results |= {f"gradient of {name}": gradients[name] for name in names}
    # relative to the largest number of each result, and a part of that of all: terms of any size cancel in them
    size = {name: float(np.abs(item).max(initial=0)) for name, item in results.items()}
    largest = max(1.0, *size.values())
    factor = 1e4 if draw.dtype == torch.float64 else 40
    for scale, *_ in mapping.layers:
        factor *= max(1.0, np.abs(scale).max())  # norms multiply rounding errors
    expected = {
        name: Estimate(item, np.full_like(item, factor * (size[name] + 0.1 * largest)))
        for name, item in results.items()
    }
    step = partial(train, layer, operands, grad_output, names)
    return Case(operands | {"layer": layer, "trained": names}, step, expected, draw.dtype, native=False)


def train(layer: Any, operands: dict[str, Tensor], grad_output: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Do a training step of a copy of the layer, in which only ``names`` are trained."""
    layer = copy.deepcopy(layer).requires_grad_(False)
    leaves = {name: operand.detach() for name, operand in operands.items()}
    trained = leaves | dict(layer.named_parameters())
    for name in names:
        trained[name].requires_grad_()
    output = layer.attend(*leaves.values())
    gradients = torch.autograd.grad(output, [trained[name] for name in names], grad_output)
    found = {f"gradient of {name}": gradient for name, gradient in zip(names, gradients, strict=True)}
    return {"output": output.detach()} | found | dict(layer.named_buffers())
