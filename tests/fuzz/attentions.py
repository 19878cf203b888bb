"""Random problems of the whole attentions: fused, or in float64 unfused with all gradients."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sa_layers import ops
from sa_layers.ops import AffineReLU, MappingLayer, PairPosition

from . import oracle
from .case import Case, accumulation
from .draw import Draw, array, footprint_of
from .oracle import Array, Estimate


def pairwise_attention(draw: Draw) -> Case:
    relation = draw.one_of(ops.PAIRWISE_RELATIONS)
    channels, weights = draw.channels(24), draw.channels(12)
    positions = draw.one_of((0, 1, 2, 4))
    inputs = {"dot": 1, "concatenation": 2 * channels}.get(relation, channels) + positions
    widths = [inputs, *(draw.channels(20) for _ in range(draw.one_of((0, 1, 1, 2)))), weights]
    position, coordinates = None, None
    if positions:
        coordinates = draw.one_of((None, None, (7, 9), (64, 33)))
        position = PairPosition(draw.parameter(positions, 3), draw.parameter(positions, 3), coordinates)
    operands, arguments = maps(draw, channels, weights, max(widths), 81)
    layers = [MappingLayer(*draw.layer(*sizes)) for sizes in pairwise(widths)]
    footprint = footprint_of(operands["query"], arguments)

    def features(query: Array, key: Array) -> Estimate:
        of_maps = oracle.pairwise_relation(query, key, relation, footprint)
        if position is None:
            return of_maps
        encoded = oracle.pair_position(array(position.query), array(position.key), coordinates, footprint)
        both = zip(of_maps, encoded, strict=True)
        return Estimate(*(np.concatenate([a, np.broadcast_to(b, (len(a), *b.shape[1:]))], axis=1) for a, b in both))

    def function(**changed: Any) -> Tensor:
        options = {"relation": relation, "position": position} | arguments
        return ops.pairwise_attention(**changed, **options)

    def of_features(grad: Array, query: Array, key: Array) -> tuple[Array, Array]:
        grad = grad[:, : grad.shape[1] - positions]
        gradients = oracle.pairwise_relation_gradients(grad, query, key, relation, footprint)
        return gradients[0].value, gradients[1].value

    options = arguments | {"relation": relation, "position": position}
    return attention(draw, operands, layers, options, footprint, features, function, of_features, softmax=True)


def patchwise_attention(draw: Draw) -> Case:
    relation, weights = draw.one_of(ops.PATCHWISE_RELATIONS), draw.channels(20)
    channels = draw.channels(16)
    if draw.chance(0.05):
        weights = draw.one_of((40, 64, 100))
    operands, arguments = maps(draw, channels, weights, channels + weights, 9 if relation == "clique" else 49)
    footprint = footprint_of(operands["query"], arguments)
    taps = len(footprint.index)
    inputs = {"star": taps, "clique": taps**2}.get(relation, channels * (1 + taps))
    layers = [MappingLayer(*draw.layer(inputs, weights)), MappingLayer(*draw.layer(weights, weights * taps))]

    def features(query: Array, key: Array) -> Estimate:
        return oracle.patchwise_relation(query, key, relation, footprint)

    def function(**changed: Any) -> Tensor:
        return ops.patchwise_attention(**changed, relation=relation, **arguments)

    def of_features(grad: Array, query: Array, key: Array) -> tuple[Array, Array]:
        return oracle.patchwise_relation_gradients(grad, query, key, relation, footprint)

    options = arguments | {"relation": relation}
    return attention(draw, operands, layers, options, footprint, features, function, of_features, softmax=False)


def maps(draw: Draw, channels: int, weights: int, widest: int, taps: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Query, key and value, sometimes slices of one map, and the footprint."""
    value_channels = weights * draw.up_to(5)
    batch, size, arguments = draw.geometry(max(widest, value_channels), taps)
    widths = {"query": channels, "key": channels, "value": value_channels}
    if draw.chance(0.3):
        whole = draw.map(batch, sum(widths.values()), *size).contiguous(memory_format=torch.channels_last)
        return dict(zip(widths, whole.split(list(widths.values()), 1), strict=True)), arguments
    return {name: draw.map(batch, width, *size) for name, width in widths.items()}, arguments


def attention(
    draw: Draw,
    operands: dict[str, Tensor],
    layers: list[MappingLayer],
    options: dict[str, Any],
    footprint: oracle.Footprint,
    features: Callable[[Array, Array], Estimate],
    function: Callable[..., Tensor],
    of_features: Callable[[Array, Array, Array], tuple[Array, Array]],
    *,
    softmax: bool,
) -> Case:
    """What both attentions share: ``of_features`` is the gradient of the relation; pairwise attention has a softmax.

    Gradients are those of the unfused path. A ReLU near zero makes them ill-conditioned, except in float64.
    """
    channels = operands["value"].shape[1]
    epilogue = AffineReLU(draw.parameter(channels), draw.parameter(channels)) if draw.chance(0.4) else None
    query, key, value = map(array, operands.values())
    related = features(query, key)
    parameters = [tuple(map(array, layer)) for layer in layers]
    logits = oracle.mapping(related, parameters)
    shape = (len(value), layers[-1].bias.shape[0] // (1 if softmax else len(footprint.index)), *footprint.index.shape)
    logits = Estimate(*(item.reshape(shape) for item in logits))
    weight = oracle.softmax(logits) if softmax else logits
    output = oracle.aggregate(value, weight, footprint)
    if epilogue is not None:
        output = oracle.affine_relu(output, *map(array, epilogue))
    expected = {"output": output}
    shown = operands | options | {"mapping": layers, "epilogue": epilogue}
    differentiates = draw.dtype == torch.float64 and draw.extreme == "" and draw.chance(0.7)
    if not differentiates:

        def call() -> dict[str, Tensor]:
            return {"output": function(**operands, mapping=layers, epilogue=epilogue)}

        native = softmax or draw.dtype != torch.float64
        return Case(shown, call, expected, accumulation(draw.dtype), native)

    grad = draw.map(len(value), channels, *footprint.output_size, extreme=False)
    back = array(grad)
    if epilogue is not None:
        back = back * (output.value > 0) * array(epilogue.scale)[:, None, None]
    of_value, of_weight = oracle.aggregation_gradients(back, value, weight, footprint)
    of_logits = oracle.logits_gradient(of_weight, weight).value if softmax else of_weight.value
    of_outputs = of_logits.reshape(len(value), len(parameters[-1][3]), *related.value.shape[2:])
    of_related, of_parameters = oracle.mapping_gradients(of_outputs, related.value, parameters)
    of_query, of_key = of_features(of_related, query, key)
    gradients = [of_query, of_key, of_value.value, *of_parameters]
    names = [*operands, *(f"mapping[{i}].{name}" for i in range(len(layers)) for name in MappingLayer._fields)]

    def call_with_gradients() -> dict[str, Tensor]:
        leaves = [tensor.detach().requires_grad_() for tensor in chain(operands.values(), *layers)]
        mapping = [MappingLayer(*leaves[start : start + 4]) for start in range(3, len(leaves), 4)]
        found = function(**dict(zip(operands, leaves, strict=False)), mapping=mapping, epilogue=epilogue)
        results = torch.autograd.grad(found, leaves, grad)
        return {"output": found.detach()} | dict(zip(names, results, strict=True))

    # relative to the largest number of all: terms of any size cancel in them
    largest = 1e3 * max(float(np.abs(item).max(initial=1)) for item in gradients)
    expected |= {name: Estimate(item, np.full_like(item, largest)) for name, item in zip(names, gradients, strict=True)}
    return Case(shown, call_with_gradients, expected, torch.float64, native=False)
